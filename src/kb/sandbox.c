/* Parsers in a child process.
 *
 * The child inherits the file's bytes (copy on write), gives up everything else — no new files, no
 * network, no processes; bounded memory and processor time — runs the parser and writes its status,
 * sentence and records into a pipe. For PDF the child becomes pdftotext under a filter that lets it
 * read files (fonts' character maps) but not write, connect, fork or run anything else; what it
 * prints then goes through a second child like any other text.
 *
 * Forking a process that has threads is safe here because the child uses only malloc (which glibc
 * makes usable after fork), system calls and the parsing libraries; a lock that some other thread
 * held inside one of these would end as a timeout, not as a wrong result. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <seccomp.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "kb/doc.h"
#include "kb/parse.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0 /* sanitizers reserve terabytes of address space: no limit on it then */
#endif

enum {
    CPU_SECONDS = 60,
    WALL_SECONDS = 120,
    OUTPUT_MAX = HD_KB__TEXT_MAX + (16 << 20),
};
#define MEMORY_MAX ((rlim_t)2 << 30)

static const struct hd_kb__format formats[] = {
    {"text", " txt text log ", hd_kb__parse_text},
    {"markdown", " md markdown mkd ", hd_kb__parse_markdown},
    {"html", " html htm xhtml ", hd_kb__parse_html},
    {"pdf", " pdf ", NULL},
    {"docx", " docx ", hd_kb__parse_docx},
    {"epub", " epub ", hd_kb__parse_epub},
};

const struct hd_kb__format *hd_kb__format_of(const char *name)
{
    const char *dot = strrchr(name, '.');
    size_t len = dot ? strlen(dot + 1) : 0;
    if (!len || len > 10 || strchr(dot, '/'))
        return NULL;
    char key[16] = " ";
    for (size_t i = 0; i < len; i++)
        key[i + 1] = dot[i + 1] >= 'A' && dot[i + 1] <= 'Z' ? (char)(dot[i + 1] + 32) : dot[i + 1];
    key[len + 1] = ' ';
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strstr(formats[i].extensions, key))
            return &formats[i];
    return NULL;
}

/* --- the child's side --------------------------------------------------------------------- */

static void limit(int resource, rlim_t value)
{
    struct rlimit now;
    if (getrlimit(resource, &now))
        return;
    if (now.rlim_max != RLIM_INFINITY && value > now.rlim_max)
        value = now.rlim_max;
    struct rlimit rl = {value, value};
    setrlimit(resource, &rl);
}

/* The address space in use, in bytes: the limit counts what the parent has mapped, too. */
static rlim_t mapped_now(void)
{
    char text[64] = "";
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 ? (rlim_t)strtoull(text, NULL, 10) * (rlim_t)sysconf(_SC_PAGESIZE) : 0;
}

static void set_limits(bool inherit_mapped)
{
    limit(RLIMIT_CPU, CPU_SECONDS);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_NOFILE, 64);
    if (!SANITIZED)
        limit(RLIMIT_AS, MEMORY_MAX + (inherit_mapped ? mapped_now() : 0));
}

static const int parser_calls[] = {
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(close),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(lseek),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(brk),
    SCMP_SYS(madvise),
    SCMP_SYS(futex),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(getrandom),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(tgkill),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall),
};

/* Everything that is not on the list fails with EPERM; nothing becomes executable. */
static int forbid_all_but_parsing(void)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!ctx)
        return -1;
    int rc = 0;
    for (size_t i = 0; i < sizeof parser_calls / sizeof *parser_calls; i++)
        rc |= seccomp_rule_add(ctx, SCMP_ACT_ALLOW, parser_calls[i], 0);
    struct scmp_arg_cmp not_exec = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
    rc |= seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, &not_exec);
    rc |= seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, &not_exec);
    if (!rc)
        rc = seccomp_load(ctx);
    seccomp_release(ctx);
    return rc;
}

static const int pdf_denied[] = {
    SCMP_SYS(socket),
    SCMP_SYS(socketpair),
    SCMP_SYS(connect),
    SCMP_SYS(bind),
    SCMP_SYS(listen),
    SCMP_SYS(accept),
    SCMP_SYS(accept4),
    SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),
    SCMP_SYS(fork),
    SCMP_SYS(vfork),
    SCMP_SYS(clone3),
    SCMP_SYS(execveat),
    SCMP_SYS(ptrace),
    SCMP_SYS(kill),
    SCMP_SYS(tkill),
    SCMP_SYS(unlink),
    SCMP_SYS(unlinkat),
    SCMP_SYS(rename),
    SCMP_SYS(renameat),
    SCMP_SYS(renameat2),
    SCMP_SYS(mkdir),
    SCMP_SYS(mkdirat),
    SCMP_SYS(rmdir),
    SCMP_SYS(link),
    SCMP_SYS(linkat),
    SCMP_SYS(symlink),
    SCMP_SYS(symlinkat),
    SCMP_SYS(chmod),
    SCMP_SYS(fchmod),
    SCMP_SYS(fchmodat),
    SCMP_SYS(chown),
    SCMP_SYS(fchown),
    SCMP_SYS(fchownat),
    SCMP_SYS(truncate),
    SCMP_SYS(creat),
    SCMP_SYS(openat2),
    SCMP_SYS(mount),
    SCMP_SYS(umount2),
    SCMP_SYS(bpf),
    SCMP_SYS(io_uring_setup),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(keyctl),
    SCMP_SYS(add_key),
    SCMP_SYS(request_key),
    SCMP_SYS(setns),
    SCMP_SYS(unshare),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(perf_event_open),
};

/* pdftotext may read files, nothing more. execve is allowed for exactly the pointer that we are
 * about to use: after it, the address space that held it is gone. */
static int forbid_for_pdf(const char *program)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    if (!ctx)
        return -1;
    int rc = 0;
    for (size_t i = 0; i < sizeof pdf_denied / sizeof *pdf_denied; i++)
        rc |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), pdf_denied[i], 0);
    const int bad_flags[] = {O_WRONLY, O_RDWR};
    for (size_t i = 0; i < 2; i++) {
        struct scmp_arg_cmp at = SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE, (scmp_datum_t)bad_flags[i]);
        struct scmp_arg_cmp plain =
            SCMP_A1(SCMP_CMP_MASKED_EQ, O_ACCMODE, (scmp_datum_t)bad_flags[i]);
        rc |= seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(openat), 1, &at);
        rc |= seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(open), 1, &plain);
    }
    struct scmp_arg_cmp other = {0, SCMP_CMP_NE, (scmp_datum_t)(uintptr_t)program, 0};
    rc |= seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(execve), 1, &other);
    if (!rc)
        rc = seccomp_load(ctx);
    seccomp_release(ctx);
    return rc;
}

static void write_all(int fd, const void *data, size_t len)
{
    const char *p = data;
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            _exit(3);
        p += n;
        len -= (size_t)n;
    }
}

struct status {
    int32_t err;
    struct hd_errmsg msg;
};

static void run_parser(int fd, hd_kb__parse_fn parse, const char *data, size_t len)
{
    struct hd_buf records;
    struct status status;
    memset(&status, 0, sizeof status);
    hd_buf_init(&records, OUTPUT_MAX);
    set_limits(true);
    if (forbid_all_but_parsing())
        status.err = hd_fail(&status.msg, HD_ERR_UNAVAILABLE,
                             "the sandbox for parsers cannot be set up on this system");
    else
        status.err = parse(&records, data, len, &status.msg);
    if (!status.err && records.err)
        status.err = records.err;
    write_all(fd, &status, sizeof status);
    if (!status.err && records.len)
        write_all(fd, records.data, records.len);
    _exit(0);
}

static void run_pdftotext(int fd, int input, const char *program)
{
    static const char *const argv[] = {"pdftotext", "-q", "-enc", "UTF-8", "-", "-", NULL};
    static const char *const envp[] = {"LC_ALL=C.UTF-8", "HOME=/nonexistent", "PATH=/usr/bin",
                                       NULL};
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (dup2(input, 0) < 0 || dup2(fd, 1) < 0 || (null >= 0 && dup2(null, 2) < 0))
        _exit(4);
    syscall(SYS_close_range, 3u, ~0u, 0u);
    set_limits(false);
    if (forbid_for_pdf(program))
        _exit(5);
    execve(program, (char *const *)argv, (char *const *)envp);
    _exit(6);
}

/* --- the parent's side -------------------------------------------------------------------- */

/* Reads the pipe to its end, the deadline or the limit. */
static enum hd_err drain(int fd, struct hd_buf *out)
{
    double deadline = hd_clock_seconds() + WALL_SECONDS;
    for (;;) {
        double left = deadline - hd_clock_seconds();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready = left > 0 ? poll(&p, 1, (int)(left * 1000) + 1) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return HD_ERR_TIMEOUT;
        char *to = hd_buf_reserve(out, 65536);
        if (!to)
            return out->err;
        ssize_t n = read(fd, to, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? HD_ERR_IO : HD_OK;
        out->len += (size_t)n;
    }
}

static enum hd_err explain(int wstatus, enum hd_err drained, struct hd_errmsg *msg)
{
    if (drained == HD_ERR_TIMEOUT || (WIFSIGNALED(wstatus) && WTERMSIG(wstatus) == SIGXCPU))
        return hd_fail(msg, HD_ERR_TIMEOUT, "reading it took more than %d s of work", CPU_SECONDS);
    if (drained == HD_ERR_LIMIT)
        return hd_fail(msg, HD_ERR_LIMIT, "it holds more than %d MiB of text",
                       HD_KB__TEXT_MAX >> 20);
    if (drained)
        return hd_fail(msg, drained, "%s", hd_err_text(drained));
    if (WIFSIGNALED(wstatus))
        return hd_fail(msg, HD_ERR_FORMAT, "its parser failed on it (%s)",
                       strsignal(WTERMSIG(wstatus)));
    return HD_OK;
}

/* Runs `child` with the pipe's writing end; collects what it writes. *wstatus is its exit. */
static enum hd_err run_child(struct hd_buf *out, int *wstatus,
                             void (*child)(int fd, const void *ud), const void *ud,
                             struct hd_errmsg *msg)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC))
        return hd_fail(msg, HD_ERR_IO, "pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0) {
        enum hd_err err = hd_fail(msg, HD_ERR_UNAVAILABLE, "fork: %s", strerror(errno));
        close(fds[0]);
        close(fds[1]);
        return err;
    }
    if (pid == 0) {
        close(fds[0]);
        child(fds[1], ud);
        _exit(7);
    }
    close(fds[1]);
    enum hd_err drained = drain(fds[0], out);
    close(fds[0]);
    if (drained)
        kill(pid, SIGKILL);
    while (waitpid(pid, wstatus, 0) < 0 && errno == EINTR)
        ;
    return explain(*wstatus, drained, msg);
}

struct parse_job {
    hd_kb__parse_fn parse;
    const char *data;
    size_t len;
};

static void parse_child(int fd, const void *ud)
{
    const struct parse_job *job = ud;
    run_parser(fd, job->parse, job->data, job->len);
}

static enum hd_err parse_in_child(struct hd_buf *records, const struct parse_job *job,
                                  struct hd_errmsg *msg)
{
    struct hd_buf out;
    struct status status;
    int wstatus = 0;
    hd_buf_init(&out, OUTPUT_MAX);
    enum hd_err err = run_child(&out, &wstatus, parse_child, job, msg);
    if (!err && out.len < sizeof status)
        err = hd_fail(msg, HD_ERR_FORMAT, "its parser failed on it");
    if (!err) {
        memcpy(&status, out.data, sizeof status);
        status.msg.text[sizeof status.msg.text - 1] = '\0';
        if (status.err) {
            bool known = status.err < 0 && status.err >= HD_ERR_USAGE;
            err = known ? (enum hd_err)status.err : HD_ERR_FORMAT;
            hd_fail(msg, err, "%s", status.msg.text[0] ? status.msg.text : hd_err_text(err));
        } else {
            err = hd_buf_append(records, out.data + sizeof status, out.len - sizeof status);
        }
    }
    hd_buf_dispose(&out);
    return err;
}

struct pdf_job {
    int input;
    const char *program;
};

static void pdf_child(int fd, const void *ud)
{
    const struct pdf_job *job = ud;
    run_pdftotext(fd, job->input, job->program);
}

static int memory_file(const char *data, size_t len)
{
    int fd = memfd_create("document", MFD_CLOEXEC);
    for (size_t at = 0; fd >= 0 && at < len;) {
        ssize_t n = write(fd, data + at, len - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            close(fd);
            return -1;
        }
        at += (size_t)n;
    }
    if (fd >= 0)
        lseek(fd, 0, SEEK_SET);
    return fd;
}

static enum hd_err parse_pdf(struct hd_buf *records, const char *data, size_t len,
                             struct hd_errmsg *msg)
{
    static const char program[] = "/usr/bin/pdftotext";
    if (access(program, X_OK))
        return hd_fail(msg, HD_ERR_UNAVAILABLE,
                       "pdftotext is missing (install the package poppler-utils)");
    struct pdf_job job = {.input = memory_file(data, len), .program = program};
    if (job.input < 0)
        return hd_fail(msg, HD_ERR_NOMEM, "no memory for a copy of it");
    struct hd_buf text;
    int wstatus = 0;
    hd_buf_init(&text, HD_KB__TEXT_MAX);
    enum hd_err err = run_child(&text, &wstatus, pdf_child, &job, msg);
    close(job.input);
    if (!err && WEXITSTATUS(wstatus)) {
        int code = WEXITSTATUS(wstatus);
        err = code == 5 ? hd_fail(msg, HD_ERR_UNAVAILABLE,
                                  "the sandbox for parsers cannot be set up on this system")
              : code == 3
                  ? hd_fail(msg, HD_ERR_DENIED, "it forbids extracting text, or is encrypted")
                  : hd_fail(msg, HD_ERR_FORMAT, "pdftotext cannot read it (damaged or encrypted)");
    }
    if (!err && text.len && !hd_utf8_valid(text.data, text.len))
        err = hd_fail(msg, HD_ERR_FORMAT, "pdftotext gave malformed text");
    if (!err) {
        struct parse_job pages = {hd_kb__parse_pages, hd_buf_str(&text), text.len};
        err = parse_in_child(records, &pages, msg);
    }
    hd_buf_dispose(&text);
    return err;
}

enum hd_err hd_kb__parse(struct hd_buf *records, const struct hd_kb__format *format,
                         const char *data, size_t len, struct hd_errmsg *msg)
{
    if (!format->parse)
        return parse_pdf(records, data, len, msg);
    struct parse_job job = {format->parse, data, len};
    return parse_in_child(records, &job, msg);
}
