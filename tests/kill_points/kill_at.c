/* Runs a program and kills it, all its threads, as it enters the N-th system call that changes what is on the disk.
 *
 *   kill_at N LOG PROGRAM [ARG...]     N from 1; with 0 it is never killed
 *
 * In: the number. Out: a line for each such call in LOG, NAME and the path or descriptor that it is about; the program's
 * exit status, or 137 when it was killed. The program's own threads are followed and counted together, in the order in
 * which they enter; processes that it starts are not. (strace counts every thread for itself, so it can't do this.)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/ptrace.h>

enum about { DESCRIPTOR, PATH, PATH_AT, OPEN_AT };
static const struct call { long number; const char *name; enum about about; } CALLS[] = {
    {SYS_write, "write", DESCRIPTOR}, {SYS_pwrite64, "pwrite64", DESCRIPTOR}, {SYS_writev, "writev", DESCRIPTOR},
    {SYS_pwritev, "pwritev", DESCRIPTOR}, {SYS_pwritev2, "pwritev2", DESCRIPTOR}, {SYS_sendfile, "sendfile", DESCRIPTOR},
    {SYS_copy_file_range, "copy_file_range", DESCRIPTOR}, {SYS_fsync, "fsync", DESCRIPTOR},
    {SYS_fdatasync, "fdatasync", DESCRIPTOR}, {SYS_ftruncate, "ftruncate", DESCRIPTOR}, {SYS_truncate, "truncate", PATH},
    {SYS_fallocate, "fallocate", DESCRIPTOR}, {SYS_syncfs, "syncfs", DESCRIPTOR}, {SYS_renameat, "renameat", PATH_AT},
    {SYS_renameat2, "renameat2", PATH_AT}, {SYS_linkat, "linkat", PATH_AT}, {SYS_symlinkat, "symlinkat", PATH},
    {SYS_unlinkat, "unlinkat", PATH_AT}, {SYS_mkdirat, "mkdirat", PATH_AT}, {SYS_openat, "openat", OPEN_AT},
#ifdef SYS_open
    {SYS_rename, "rename", PATH}, {SYS_link, "link", PATH}, {SYS_symlink, "symlink", PATH}, {SYS_unlink, "unlink", PATH},
    {SYS_rmdir, "rmdir", PATH}, {SYS_mkdir, "mkdir", PATH}, {SYS_creat, "creat", PATH},
#endif
};

static void die(const char *what) {
    perror(what);
    exit(99);
}

/* A path of the program's, as far as it can be read. */
static void path_of(pid_t thread, unsigned long long address, char *text, size_t size) {
    struct iovec here = {text, size - 1};
    /* Not across the end of a page, behind which there may be nothing. */
    size_t page = 4096 - address % 4096, length = page < size - 1 ? page : size - 1;
    struct iovec there = {(void *)(unsigned long)address, length};
    ssize_t count = syscall(SYS_process_vm_readv, thread, &here, 1, &there, 1, 0);
    if (count >= 0 && (size_t)count == length && length < size - 1 && !memchr(text, 0, length)) {
        struct iovec more_here = {text + length, size - 1 - length};
        struct iovec more = {(void *)(unsigned long)(address + length), size - 1 - length};
        ssize_t rest = syscall(SYS_process_vm_readv, thread, &more_here, 1, &more, 1, 0);
        count += rest > 0 ? rest : 0;
    }
    text[count > 0 ? count : 0] = 0;
}

static void descriptor_of(pid_t thread, unsigned long long descriptor, char *text, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/%d/fd/%llu", (int)thread, descriptor);
    ssize_t count = readlink(link, text, size - 1);
    text[count > 0 ? count : 0] = 0;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: kill_at N LOG PROGRAM [ARG...]\n");
        return 2;
    }
    long wanted = strtol(argv[1], NULL, 10), seen = 0;
    FILE *log = fopen(argv[2], "we");
    if (!log) die(argv[2]);
    pid_t program = fork();
    if (program < 0) die("fork");
    if (program == 0) {
        if (ptrace(PTRACE_TRACEME, 0, 0, 0)) die("ptrace");
        raise(SIGSTOP);
        execv(argv[3], argv + 3);
        die(argv[3]);
    }
    int status;
    if (waitpid(program, &status, 0) != program || !WIFSTOPPED(status)) die("waitpid");
    long options = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
    if (ptrace(PTRACE_SETOPTIONS, program, 0, options)) die("ptrace options");
    if (ptrace(PTRACE_SYSCALL, program, 0, 0)) die("ptrace");
    for (;;) {
        pid_t thread = waitpid(-1, &status, __WALL);
        if (thread < 0) die("waitpid");
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (thread != program) continue;
            fclose(log);
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        int signal = WSTOPSIG(status);
        if (signal == (SIGTRAP | 0x80)) {
            struct __ptrace_syscall_info info;
            if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY) {
                for (size_t at = 0; at < sizeof CALLS / sizeof *CALLS; at++) {
                    const struct call *call = &CALLS[at];
                    if (call->number != (long)info.entry.nr) continue;
                    if (call->about == OPEN_AT && !(info.entry.args[2] & O_CREAT)
                        && (info.entry.args[2] & O_TMPFILE) != O_TMPFILE) continue;
                    char text[PATH_MAX] = "";
                    if (call->about == DESCRIPTOR) descriptor_of(thread, info.entry.args[0], text, sizeof text);
                    else path_of(thread, info.entry.args[call->about == PATH ? 0 : 1], text, sizeof text);
                    fprintf(log, "%s %s\n", call->name, text);
                    seen++;
                    /* At its entry: a call that a killed thread has entered is not carried out any more. */
                    if (seen == wanted) kill(program, SIGKILL);
                }
            }
            signal = 0;
        } else if (signal == SIGTRAP || (signal == SIGSTOP && thread != program)) {
            /* An event, or a new thread that reports. */
            signal = 0;
        }
        if (ptrace(PTRACE_SYSCALL, thread, 0, signal) && errno != ESRCH) die("ptrace");
    }
}
