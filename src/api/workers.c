/* A few threads over one bounded queue. The jobs are embedded in what they work on, so that posting
 * never allocates. */
#include "api/api_impl.h"

#include <signal.h>
#include <stdlib.h>

#include "base/thread.h"

enum { MAX_THREADS = 16 };

struct hd_api__workers {
    pthread_mutex_t mu; /* guards what follows */
    pthread_cond_t more;
    struct hd_api__job *first, *last;
    int n, max;
    bool closed;
    const char *name;
    bool prompt;
    pthread_t thread[MAX_THREADS];
    int n_thread;
};

static void *work(void *arg)
{
    struct hd_api__workers *workers = arg;
    pthread_setname_np(pthread_self(), workers->name);
    if (workers->prompt)
        hd_thread_be_prompt();
    pthread_mutex_lock(&workers->mu);
    for (;;) {
        while (!workers->first && !workers->closed)
            pthread_cond_wait(&workers->more, &workers->mu);
        struct hd_api__job *job = workers->first;
        if (!job)
            break;
        workers->first = job->next;
        if (!workers->first)
            workers->last = NULL;
        workers->n--;
        pthread_mutex_unlock(&workers->mu);
        job->run(job);
        pthread_mutex_lock(&workers->mu);
    }
    pthread_mutex_unlock(&workers->mu);
    return NULL;
}

enum hd_err hd_api__workers_new(struct hd_api__workers **out, const char *name, int n_thread,
                                int max_queue, bool prompt)
{
    struct hd_api__workers *workers = calloc(1, sizeof *workers);
    sigset_t all, before;
    *out = NULL;
    if (!workers)
        return HD_ERR_NOMEM;
    pthread_mutex_init(&workers->mu, NULL);
    pthread_cond_init(&workers->more, NULL);
    workers->name = name;
    workers->prompt = prompt;
    workers->max = max_queue;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (workers->n_thread < n_thread && workers->n_thread < MAX_THREADS &&
           !pthread_create(&workers->thread[workers->n_thread], NULL, work, workers))
        workers->n_thread++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!workers->n_thread) {
        hd_api__workers_free(workers);
        return HD_ERR_UNAVAILABLE;
    }
    *out = workers;
    return HD_OK;
}

enum hd_err hd_api__workers_post(struct hd_api__workers *workers, struct hd_api__job *job,
                                 bool must)
{
    pthread_mutex_lock(&workers->mu);
    bool closed = workers->closed, full = workers->n >= workers->max;
    if (!closed && (must || !full)) {
        job->next = NULL;
        if (workers->last)
            workers->last->next = job;
        else
            workers->first = job;
        workers->last = job;
        workers->n++;
        pthread_cond_signal(&workers->more);
    }
    pthread_mutex_unlock(&workers->mu);
    if (closed && must) {
        job->run(job);
        return HD_OK;
    }
    return closed ? HD_ERR_UNAVAILABLE : full && !must ? HD_ERR_BUSY : HD_OK;
}

int hd_api__workers_waiting(struct hd_api__workers *workers)
{
    pthread_mutex_lock(&workers->mu);
    int n = workers->n;
    pthread_mutex_unlock(&workers->mu);
    return n;
}

void hd_api__workers_close(struct hd_api__workers *workers)
{
    if (!workers)
        return;
    pthread_mutex_lock(&workers->mu);
    workers->closed = true;
    pthread_cond_broadcast(&workers->more);
    pthread_mutex_unlock(&workers->mu);
    for (int i = 0; i < workers->n_thread; i++)
        pthread_join(workers->thread[i], NULL);
    workers->n_thread = 0;
}

void hd_api__workers_free(struct hd_api__workers *workers)
{
    if (!workers)
        return;
    hd_api__workers_close(workers);
    pthread_cond_destroy(&workers->more);
    pthread_mutex_destroy(&workers->mu);
    free(workers);
}
