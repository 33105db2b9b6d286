# client: libcurvine: sessions, namespace calls, retry
client_src  := $(wildcard src/client/*.c)
client_pkgs := 
