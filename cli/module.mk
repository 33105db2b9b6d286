# cli: cv (cv.c), one cmd_<name>.c per command, and what they share
cli_src  := $(wildcard cli/*.c)
cli_pkgs := ncursesw jansson
