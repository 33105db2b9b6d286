/* SPDX-License-Identifier: Apache-2.0 */
/* The network side of a worker: its loops, its listeners. Called from main's thread. */
#pragma once

#include "base/cleanup.h"
#include "worker/worker_core.h"

struct worker_server;

/* backend: enum loop_backend. */
int worker_server_new(struct worker_core *core, int backend, struct worker_server **ret);
struct worker_server *worker_server_free(struct worker_server *s);
DEFINE_CLEANUP(struct worker_server *, worker_server_free)

/* Run the loops and listen on TCP and on this unix socket. Logs errors. */
int worker_server_start(struct worker_server *s, const char *socket);

/* Take no new requests and connections; what is in flight is answered, for up to grace_ms. Does not wait. */
void worker_server_stop(struct worker_server *s, uint32_t grace_ms);

/* Wait until all loops' requests are answered, at most so long. */
bool worker_server_quiet(struct worker_server *s, uint32_t timeout_ms);

/* After stop: wait, end the loops. */
void worker_server_end(struct worker_server *s);

uint16_t worker_server_port(const struct worker_server *s);
uint32_t worker_server_connections(const struct worker_server *s);
uint32_t worker_server_in_flight(const struct worker_server *s);
