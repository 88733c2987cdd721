/* A DTLS 1.2 echo server and line client on wolfSSL, for the handshake lab.
 *
 *   lab-wolfssl version
 *   lab-wolfssl server HOST PORT CERT KEY
 *   lab-wolfssl client HOST PORT CA NAME
 *
 * The server sends each record back. The client sends each line of its standard input and prints what
 * comes. Debian's library is built without a way to set the MTU.
 *
 * Reading, writing, cookies and timers are the library's own (wolfio.c, internal.c) on a connected socket, as
 * in its DTLS example server and client: the server looks at the first datagram of a client without taking it,
 * connects its socket to where it came from, and opens another for the next. One process for each client, since the
 * library's calls block in the handshake.
 *
 * Exit status: 0 closed, 1 failed, 2 wrong usage, 127 not able to do LAB_TASK. */

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

enum { UNSUPPORTED = 127, LONGEST = 16384 };

/* Prints what failed and why, and ends the process. */
static void die(const char *what, WOLFSSL *ssl, int result) {
    char why[WOLFSSL_MAX_ERROR_SZ] = "";
    int error = ssl ? wolfSSL_get_error(ssl, result) : result;
    if (error != 0)
        wolfSSL_ERR_error_string((unsigned long)error, why);
    fprintf(stderr, "%s failed: %d %s\n", what, error, why);
    exit(1);
}

static void die_of_system(const char *what) {
    fprintf(stderr, "%s failed: %s\n", what, strerror(errno));
    exit(1);
}

static struct addrinfo *resolve(const char *host, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *found;
    int error = getaddrinfo(host, port, &hints, &found);
    if (error != 0) {
        fprintf(stderr, "%s port %s: resolving failed: %s\n", host, port, gai_strerror(error));
        exit(1);
    }
    return found;
}

static int listening_socket(const struct addrinfo *where) {
    int one = 1, fd = socket(where->ai_family, SOCK_DGRAM, 0);
    if (fd < 0)
        die_of_system("socket");
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0)
        die_of_system("setsockopt");
    if (bind(fd, where->ai_addr, where->ai_addrlen) < 0)
        die_of_system("bind");
    return fd;
}

static WOLFSSL *connection(WOLFSSL_CTX *context, int fd) {
    WOLFSSL *ssl = wolfSSL_new(context);
    if (ssl == NULL)
        die("wolfSSL_new", NULL, 0);
    /* Not wolfSSL_set_fd: with that the library names a peer in each sendto, and none before the first answer. */
    if (wolfSSL_set_dtls_fd_connected(ssl, fd) != WOLFSSL_SUCCESS)
        die("wolfSSL_set_dtls_fd_connected", NULL, 0);
    return ssl;
}

/* One connection; never returns. */
static void serve(WOLFSSL_CTX *context, int fd) {
    static char data[LONGEST];
    WOLFSSL *ssl = connection(context, fd);
    int length, result = wolfSSL_accept(ssl);
    if (result != WOLFSSL_SUCCESS)
        die("handshake", ssl, result);
    while ((length = wolfSSL_read(ssl, data, sizeof data)) > 0) {
        result = wolfSSL_write(ssl, data, length);
        if (result <= 0)
            die("write", ssl, result);
    }
    if (wolfSSL_get_error(ssl, length) != WOLFSSL_ERROR_ZERO_RETURN)
        die("read", ssl, length);
    wolfSSL_shutdown(ssl);
    exit(0);
}

static void server(const char *host, const char *port, const char *cert, const char *key) {
    WOLFSSL_CTX *context = wolfSSL_CTX_new(wolfDTLSv1_2_server_method());
    struct addrinfo *where = resolve(host, port);
    if (context == NULL)
        die("wolfSSL_CTX_new", NULL, 0);
    if (wolfSSL_CTX_use_certificate_chain_file(context, cert) != WOLFSSL_SUCCESS)
        die("reading the certificate", NULL, 0);
    if (wolfSSL_CTX_use_PrivateKey_file(context, key, WOLFSSL_FILETYPE_PEM) != WOLFSSL_SUCCESS)
        die("reading the key", NULL, 0);
    signal(SIGCHLD, SIG_IGN);
    int listener = listening_socket(where);
    for (;;) {
        struct sockaddr_storage peer;
        socklen_t length = sizeof peer;
        char first;
        if (recvfrom(listener, &first, 1, MSG_PEEK, (struct sockaddr *)&peer, &length) < 0) {
            if (errno == EINTR)
                continue;
            die_of_system("recvfrom");
        }
        if (connect(listener, (struct sockaddr *)&peer, length) < 0)
            die_of_system("connect");
        pid_t child = fork();
        if (child < 0)
            die_of_system("fork");
        if (child == 0)
            serve(context, listener);
        int next = listening_socket(where);
        close(listener);
        listener = next;
    }
}

static int client(const char *host, const char *port, const char *ca, const char *name) {
    static char data[LONGEST];
    WOLFSSL_CTX *context = wolfSSL_CTX_new(wolfDTLSv1_2_client_method());
    struct addrinfo *where = resolve(host, port);
    if (context == NULL)
        die("wolfSSL_CTX_new", NULL, 0);
    if (wolfSSL_CTX_load_verify_locations(context, ca, NULL) != WOLFSSL_SUCCESS)
        die("reading the authority", NULL, 0);
    int fd = socket(where->ai_family, SOCK_DGRAM, 0);
    if (fd < 0 || connect(fd, where->ai_addr, where->ai_addrlen) < 0)
        die_of_system("connecting the socket");
    WOLFSSL *ssl = connection(context, fd);
    if (wolfSSL_check_domain_name(ssl, name) != WOLFSSL_SUCCESS)
        die("wolfSSL_check_domain_name", NULL, 0);
    int result = wolfSSL_connect(ssl);
    if (result != WOLFSSL_SUCCESS)
        die("handshake", ssl, result);

    /* From here on both the network and standard input are waited for. */
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        die_of_system("fcntl");
    wolfSSL_dtls_set_using_nonblock(ssl, 1);
    struct pollfd ready[2] = {{.fd = fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    for (;;) {
        int length;
        while ((length = wolfSSL_read(ssl, data, sizeof data - 1)) > 0) {
            data[length] = 0;
            printf("%s\n", data);
            fflush(stdout);
        }
        int error = wolfSSL_get_error(ssl, length);
        if (error == WOLFSSL_ERROR_ZERO_RETURN)
            break;
        if (error != WOLFSSL_ERROR_WANT_READ && error != WOLFSSL_ERROR_WANT_WRITE)
            die("read", ssl, length);
        if (poll(ready, 2, -1) < 0 && errno != EINTR)
            die_of_system("poll");
        if (ready[1].revents != 0) {
            ssize_t got = read(STDIN_FILENO, data, sizeof data - 1);
            if (got <= 0)
                break;
            data[got] = 0;
            for (char *line = strtok(data, "\n"); line != NULL; line = strtok(NULL, "\n")) {
                result = wolfSSL_write(ssl, line, (int)strlen(line));
                if (result <= 0 && wolfSSL_get_error(ssl, result) != WOLFSSL_ERROR_WANT_WRITE)
                    die("write", ssl, result);
            }
        }
    }
    wolfSSL_shutdown(ssl);
    return 0;
}

int main(int count, char **words) {
    const char *task = getenv("LAB_TASK");
    if (count == 2 && strcmp(words[1], "version") == 0) {
        printf("wolfSSL %s\n", wolfSSL_lib_version());
        return 0;
    }
    if (task != NULL && strcmp(task, "echo") != 0) {
        fprintf(stderr, "this program cannot do `%s`\n", task);
        return UNSUPPORTED;
    }
    wolfSSL_Init();
    if (count == 6 && strcmp(words[1], "server") == 0)
        server(words[2], words[3], words[4], words[5]);
    if (count == 6 && strcmp(words[1], "client") == 0)
        return client(words[2], words[3], words[4], words[5]);
    fprintf(stderr, "usage: lab-wolfssl version\n"
                    "       lab-wolfssl server HOST PORT CERT KEY\n"
                    "       lab-wolfssl client HOST PORT CA NAME\n");
    return 2;
}
