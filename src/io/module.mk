# io: the event loop over io_uring or epoll: sockets, files, timers; the only code that sees liburing
io_src  := $(wildcard src/io/*.c)
io_pkgs := liburing
