# place: which workers keep a block
place_src  := $(wildcard src/place/*.c)
place_pkgs := 
