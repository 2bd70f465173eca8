/* Runs a program: fork and exec, never a shell; its output caught, its time limited. */
#ifndef HD_PULL_PROCESS_H
#define HD_PULL_PROCESS_H

#include "base/error.h"

enum { HD_PROCESS_MAX_OUTPUT = 32 * 1024 };

/* The path of a program: as given if it holds a slash, else from PATH. Owned; NULL if there is no
 * executable file of that name. */
char *hd_process_find(const char *name);

struct hd_process_result {
    int status;                             /* exit status; 128 + signal where one killed it */
    char output[HD_PROCESS_MAX_OUTPUT + 1]; /* stdout and stderr together, the end of it */
};

/* argv[0] is a path; argv and envp end with NULL (envp NULL: our own environment). The program
 * reads /dev/null, is the leader of a process group of its own, and dies with the calling thread.
 * tick(ud) is called about five times a second; a failure it returns ends the group and is
 * returned. HD_OK means that it ran and ended, whatever its status. */
enum hd_err hd_process_run(struct hd_process_result *out, char *const argv[], char *const envp[],
                           double limit_s, enum hd_err (*tick)(void *ud), void *ud,
                           struct hd_errmsg *msg);

#endif
