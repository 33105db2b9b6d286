# cli: cv.c, one cmd_<name>.c per command, dash_* the dashboard
cli_src  := $(wildcard cli/*.c)
cli_pkgs := ncursesw jansson
