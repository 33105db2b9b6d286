# wire: messages.def and its codec, framing
wire_src  := $(wildcard src/wire/*.c)
wire_pkgs := 
