/* SPDX-License-Identifier: Apache-2.0 */
/* The pages of a daemon's HTTP port. They run on the HTTP thread. */
#include <assert.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>

#include "base/error.h"
#include "base/log.h"
#include "conf/daemon_internal.h"
#include "conf/json.h"

static int page_metrics(void *arg, struct buf *out)
{
    struct daemon *d = arg;
    int r = metrics_write_text(d->metrics, out);
    return r < 0 ? r : MHD_HTTP_OK;
}

static int page_metrics_json(void *arg, struct buf *out)
{
    struct daemon *d = arg;
    int r = metrics_write_json(d->metrics, out);
    return r < 0 ? r : MHD_HTTP_OK;
}

/* One line; 200 when r is 0. */
static int say(struct buf *out, int r, const char *well, const char *why)
{
    int w = buf_printf(out, "%s\n", r == 0 ? well : *why ? why : cv_error_text(r));
    return w < 0 ? w : r == 0 ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
}

/* Alive: starting and draining count, a restart would help neither. */
static int page_healthz(void *arg, struct buf *out)
{
    struct daemon *d = arg;
    pthread_mutex_lock(&d->lock);
    int r = d->phase == DAEMON_RUNNING && d->program->healthy ? d->program->healthy(d->arg) : 0;
    pthread_mutex_unlock(&d->lock);
    return say(out, r, "ok", "");
}

/* Serving. */
static int page_readyz(void *arg, struct buf *out)
{
    struct daemon *d = arg;
    char why[OPTION_MESSAGE_MAX] = "";
    int r = 0;
    pthread_mutex_lock(&d->lock);
    if (d->phase != DAEMON_RUNNING) {
        r = -EAGAIN;
        snprintf(why, sizeof(why), d->phase == DAEMON_STARTING ? "starting" : "stopping");
    } else if (d->program->ready) {
        r = d->program->ready(d->arg, why, sizeof(why));
    }
    pthread_mutex_unlock(&d->lock);
    return say(out, r, "ready", why);
}

/* One option: its value in effect, where it comes from, and the value that waits for a restart if there is one. */
static int write_option(const struct daemon *d, struct option_ref ref, struct buf *out)
{
    const struct config *in_effect = ref.option->live && d->latest ? d->latest : d->config;
    int r = buf_printf(out, "\"%s\":{\"value\":", ref.option->name);
    if (r == 0)
        r = option_format_json(ref.option, config_values(in_effect, ref.section), out);
    if (r == 0)
        r = buf_printf(out, ",\"origin\":");
    if (r == 0)
        r = json_write_text(out, config_origin(in_effect, ref));
    if (r == 0 && d->latest &&
        !option_equal(ref.option, config_values(in_effect, ref.section), config_values(d->latest, ref.section))) {
        r = buf_printf(out, ",\"after_restart\":");
        if (r == 0)
            r = option_format_json(ref.option, config_values(d->latest, ref.section), out);
    }
    return r < 0 ? r : buf_append(out, "}", 1);
}

static int page_config(void *arg, struct buf *out)
{
    struct daemon *d = arg;
    const struct option_section *const *sections = d->program->own;
    int r = buf_append(out, "{", 1);
    pthread_mutex_lock(&d->lock);
    for (uint32_t i = 0; r == 0 && sections[i]; i++) {
        r = buf_printf(out, "%s\"%s\":{", i ? "," : "", sections[i]->name);
        for (uint32_t j = 0; r == 0 && j < sections[i]->n; j++) {
            r = buf_printf(out, "%s", j ? "," : "");
            if (r == 0)
                r = write_option(d, (struct option_ref){sections[i], &sections[i]->options[j]}, out);
        }
        if (r == 0)
            r = buf_append(out, "}", 1);
    }
    pthread_mutex_unlock(&d->lock);
    if (r == 0)
        r = buf_printf(out, "}\n");
    return r < 0 ? r : MHD_HTTP_OK;
}

static int page_status(void *arg, struct buf *out)
{
    static const char *const phases[] = {"starting", "running", "stopping"};
    struct daemon *d = arg;
    pthread_mutex_lock(&d->lock);
    int r =
        buf_printf(out, "{\"program\":\"%s\",\"version\":\"" CV_VERSION "\",\"pid\":%ld,\"phase\":\"%s\",\"status\":",
                   d->program->name, (long)getpid(), phases[d->phase]);
    if (r == 0)
        r = d->phase == DAEMON_RUNNING && d->program->status ? d->program->status(d->arg, out)
                                                             : buf_printf(out, "null");
    pthread_mutex_unlock(&d->lock);
    if (r == 0)
        r = buf_printf(out, "}\n");
    return r < 0 ? r : MHD_HTTP_OK;
}

int daemon_http(struct daemon *d, const char *listen, uint32_t port)
{
    if (port == 0)
        return 0;
    assert(port <= UINT16_MAX && !d->http);
    static const struct {
        const char *path, *type;
        int (*write)(void *arg, struct buf *out);
    } pages[DAEMON_PAGES] = {
        {"/metrics", "text/plain; version=0.0.4; charset=utf-8", page_metrics},
        {"/metrics.json", "application/json", page_metrics_json},
        {"/healthz", "text/plain; charset=utf-8", page_healthz},
        {"/readyz", "text/plain; charset=utf-8", page_readyz},
        {"/config", "application/json", page_config},
        {"/status", "application/json", page_status},
    };
    for (uint32_t i = 0; i < DAEMON_PAGES; i++)
        d->pages[i] = (struct http_page){pages[i].path, pages[i].type, pages[i].write, d};
    int r = http_start(listen, (uint16_t)port, d->pages, DAEMON_PAGES, &d->http);
    return r < 0 ? log_error(r, "http: listen on %s:%u", listen, port) : 0;
}

uint16_t daemon_http_port(const struct daemon *d)
{
    return d->http ? http_port(d->http) : 0;
}
