# conf: machinery for option and metric tables: YAML, defaults, scrape
conf_src  := $(wildcard src/conf/*.c)
conf_pkgs := yaml-0.1 libmicrohttpd libsystemd
