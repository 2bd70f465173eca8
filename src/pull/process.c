#include "pull/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"

extern char **environ;

static bool is_program(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode) && !access(path, X_OK);
}

char *hd_process_find(const char *name)
{
    if (strchr(name, '/'))
        return is_program(name) ? strdup(name) : NULL;
    const char *path = getenv("PATH");
    for (const char *p = path ? path : "/usr/local/bin:/usr/bin:/bin"; *p;) {
        size_t n = strcspn(p, ":");
        char *file = NULL;
        if (n && asprintf(&file, "%.*s/%s", (int)n, p, name) < 0)
            return NULL;
        if (file && is_program(file))
            return file;
        free(file);
        p += n + (p[n] == ':');
    }
    return NULL;
}

/* Between fork and exec only async-signal-safe calls: other threads may have held any lock. */
static void be_the_program(char *const argv[], char *const envp[], int output, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    int null = open("/dev/null", O_RDONLY);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || null < 0 || dup2(null, 0) < 0 || dup2(output, 1) < 0 ||
        dup2(output, 2) < 0)
        _exit(127);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(argv[0], argv, envp);
    _exit(127);
}

/* Keeps the end of what comes: errors stand last. */
static void keep(struct hd_process_result *r, size_t *len, const char *data, size_t n)
{
    if (n > HD_PROCESS_MAX_OUTPUT / 2) {
        data += n - HD_PROCESS_MAX_OUTPUT / 2;
        n = HD_PROCESS_MAX_OUTPUT / 2;
    }
    if (*len + n > HD_PROCESS_MAX_OUTPUT) {
        size_t drop = *len + n - HD_PROCESS_MAX_OUTPUT;
        memmove(r->output, r->output + drop, *len - drop);
        *len -= drop;
    }
    memcpy(r->output + *len, data, n);
    *len += n;
    r->output[*len] = 0;
}

/* Takes what is there, waiting at most wait_ms; false at the end of the output. */
static bool read_some(int fd, int wait_ms, struct hd_process_result *r, size_t *len)
{
    char data[4096];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, wait_ms) <= 0)
        return true;
    ssize_t n = read(fd, data, sizeof data);
    if (n > 0)
        keep(r, len, data, (size_t)n);
    return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
}

/* Ends the whole group, politely first, and waits for its leader. */
static int end_group(pid_t pid)
{
    const struct timespec step = {.tv_nsec = 20 * 1000 * 1000};
    int status = 0;
    kill(-pid, SIGTERM);
    for (int i = 0; i < 50; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            kill(-pid, SIGKILL); /* whoever of the group is left */
            return status;
        }
        nanosleep(&step, NULL);
    }
    kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

static enum hd_err watch(struct hd_process_result *out, pid_t pid, int fd, double limit_s,
                         enum hd_err (*tick)(void *ud), void *ud, const char *name,
                         struct hd_errmsg *msg)
{
    double end = hd_clock_seconds() + limit_s;
    bool open_output = true;
    int status;
    size_t len = 0;
    for (;;) {
        if (open_output)
            open_output = read_some(fd, 200, out, &len);
        else
            poll(NULL, 0, 20);
        if (waitpid(pid, &status, WNOHANG) == pid)
            break;
        enum hd_err err = tick ? tick(ud) : HD_OK;
        if (!err && hd_clock_seconds() > end)
            err = hd_fail(msg, HD_ERR_TIMEOUT, "%s: not done within %g s", name, limit_s);
        if (err) {
            end_group(pid);
            return err;
        }
    }
    /* What it wrote last; bounded, for a child of its own may go on writing. */
    struct pollfd rest = {.fd = fd, .events = POLLIN};
    for (int i = 0; open_output && i < 256 && poll(&rest, 1, 0) > 0; i++)
        open_output = read_some(fd, 0, out, &len);
    out->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return HD_OK;
}

enum hd_err hd_process_run(struct hd_process_result *out, char *const argv[], char *const envp[],
                           double limit_s, enum hd_err (*tick)(void *ud), void *ud,
                           struct hd_errmsg *msg)
{
    int fds[2];
    out->status = -1;
    out->output[0] = 0;
    if (pipe2(fds, O_CLOEXEC))
        return hd_fail(msg, HD_ERR_IO, "%s: %s", argv[0], strerror(errno));
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        be_the_program(argv, envp ? envp : environ, fds[1], parent);
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        return hd_fail(msg, HD_ERR_IO, "%s: cannot be started: %s", argv[0], strerror(errno));
    }
    setpgid(pid, pid); /* whichever of the two comes first */
    enum hd_err err = watch(out, pid, fds[0], limit_s, tick, ud, argv[0], msg);
    close(fds[0]);
    return err;
}
