/* Lets User-Mode Linux run on processors whose register state is larger than it knows (AMX).
 *
 * UML keeps its processes' registers through ptrace(2), in a buffer of 2.7 KB. Where the host's state
 * is larger, reading gives the beginning, but the kernel writes all or nothing and says EFAULT, upon which
 * UML's first process dies. Preloaded into linux.uml by uml.sh, this writes the beginning over what is
 * there. What lies behind it no program uses unasked. UML's own threads call it, one process each. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long ptrace_function(enum __ptrace_request, pid_t, void *, void *);

long ptrace(enum __ptrace_request request, ...)
{
    static ptrace_function *real;
    if (!real)
        real = (ptrace_function *)dlsym(RTLD_NEXT, "ptrace");

    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);

    if (request != PTRACE_SETREGSET || address != (void *)NT_X86_XSTATE)
        return real(request, pid, address, data);
    static __thread char whole[1 << 16];
    const struct iovec *known = data;
    struct iovec all = {whole, sizeof whole};
    if (real(PTRACE_GETREGSET, pid, address, &all) < 0)
        return -1;
    memcpy(whole, known->iov_base, known->iov_len < all.iov_len ? known->iov_len : all.iov_len);
    return real(PTRACE_SETREGSET, pid, address, &all);
}
