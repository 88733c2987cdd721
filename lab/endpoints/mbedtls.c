/* A DTLS 1.2 echo server and line client on Mbed TLS, for the handshake lab.
 *
 *   lab-mbedtls version
 *   lab-mbedtls server HOST PORT CERT KEY [mtu=N]
 *   lab-mbedtls client HOST PORT CA NAME [mtu=N] [session=FILE]
 *
 * The server sends each record back. The client sends each line of its standard input and prints what
 * comes. N is the longest datagram in bytes. The session in FILE is resumed if it is there, and the new one
 * written.
 *
 * Sockets, cookies and timers are the library's own (net_sockets.c, ssl_cookie.c, timing.c), used as its
 * programs dtls_server.c and dtls_client.c use them, so that what is seen on the wire is the library's
 * doing. One process for each client, since the library's calls block in the handshake.
 *
 * Exit status: 0 closed, 1 failed, 2 wrong usage, 127 not able to do LAB_TASK. */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_cookie.h>
#include <mbedtls/timing.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>

enum { UNSUPPORTED = 127, LONGEST = 16384 };

static mbedtls_entropy_context entropy;
static mbedtls_ctr_drbg_context random_bytes;
static mbedtls_ssl_config config;
static mbedtls_x509_crt certificates;
static mbedtls_pk_context key;
static mbedtls_ssl_cookie_ctx cookies;

/* Prints what failed and why, and ends the process. */
static void die(const char *what, int error) {
    char why[160] = "";
    mbedtls_strerror(error, why, sizeof why);
    fprintf(stderr, "%s failed: -0x%04x %s\n", what, (unsigned)-error, why);
    exit(1);
}

static void check(const char *what, int result) {
    if (result != 0)
        die(what, result);
}

/* What server and client have in common. */
static void prepare(int role) {
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&random_bytes);
    mbedtls_ssl_config_init(&config);
    mbedtls_x509_crt_init(&certificates);
    mbedtls_pk_init(&key);
    check("seeding", mbedtls_ctr_drbg_seed(&random_bytes, mbedtls_entropy_func, &entropy, NULL, 0));
    check("ssl_config_defaults", mbedtls_ssl_config_defaults(&config, role, MBEDTLS_SSL_TRANSPORT_DATAGRAM,
                                                             MBEDTLS_SSL_PRESET_DEFAULT));
    mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &random_bytes);
    mbedtls_ssl_conf_min_version(&config, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
}

/* One connection on a connected socket; never returns. */
static void serve(mbedtls_net_context *peer, const unsigned char *address, size_t length, int mtu) {
    mbedtls_ssl_context ssl;
    mbedtls_timing_delay_context timer;
    static unsigned char data[LONGEST];
    int result;

    mbedtls_ssl_init(&ssl);
    check("ssl_setup", mbedtls_ssl_setup(&ssl, &config));
    if (mtu > 0)
        mbedtls_ssl_set_mtu(&ssl, (uint16_t)mtu);
    mbedtls_ssl_set_timer_cb(&ssl, &timer, mbedtls_timing_set_delay, mbedtls_timing_get_delay);
    mbedtls_ssl_set_bio(&ssl, peer, mbedtls_net_send, NULL, mbedtls_net_recv_timeout);
    do {
        /* The library forgets the connection with each HelloVerifyRequest. */
        check("ssl_session_reset", mbedtls_ssl_session_reset(&ssl));
        check("ssl_set_client_transport_id", mbedtls_ssl_set_client_transport_id(&ssl, address, length));
        do
            result = mbedtls_ssl_handshake(&ssl);
        while (result == MBEDTLS_ERR_SSL_WANT_READ || result == MBEDTLS_ERR_SSL_WANT_WRITE);
    } while (result == MBEDTLS_ERR_SSL_HELLO_VERIFY_REQUIRED);
    check("handshake", result);
    for (;;) {
        result = mbedtls_ssl_read(&ssl, data, sizeof data);
        if (result == MBEDTLS_ERR_SSL_WANT_READ || result == MBEDTLS_ERR_SSL_WANT_WRITE ||
            result == MBEDTLS_ERR_SSL_TIMEOUT)
            continue;
        if (result == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY || result == 0)
            break;
        /* The client began anew from the same port (RFC 6347, section 4.2.8). */
        if (result == MBEDTLS_ERR_SSL_CLIENT_RECONNECT) {
            do
                result = mbedtls_ssl_handshake(&ssl);
            while (result == MBEDTLS_ERR_SSL_WANT_READ || result == MBEDTLS_ERR_SSL_WANT_WRITE);
            check("handshake", result);
            continue;
        }
        if (result < 0)
            die("read", result);
        result = mbedtls_ssl_write(&ssl, data, (size_t)result);
        if (result < 0)
            die("write", result);
    }
    mbedtls_ssl_close_notify(&ssl);
    exit(0);
}

static void server(const char *host, const char *port, const char *cert_file, const char *key_file, int mtu) {
    mbedtls_net_context listener, peer;
    unsigned char address[16];
    size_t length;

    prepare(MBEDTLS_SSL_IS_SERVER);
    check("reading the certificate", mbedtls_x509_crt_parse_file(&certificates, cert_file));
    check("reading the key", mbedtls_pk_parse_keyfile(&key, key_file, NULL));
    check("ssl_conf_own_cert", mbedtls_ssl_conf_own_cert(&config, &certificates, &key));
    mbedtls_ssl_cookie_init(&cookies);
    check("ssl_cookie_setup", mbedtls_ssl_cookie_setup(&cookies, mbedtls_ctr_drbg_random, &random_bytes));
    mbedtls_ssl_conf_dtls_cookies(&config, mbedtls_ssl_cookie_write, mbedtls_ssl_cookie_check, &cookies);
    mbedtls_net_init(&listener);
    check("net_bind", mbedtls_net_bind(&listener, host, port, MBEDTLS_NET_PROTO_UDP));
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        mbedtls_net_init(&peer);
        /* Connects the listening socket to the client, and opens another. */
        check("net_accept", mbedtls_net_accept(&listener, &peer, address, sizeof address, &length));
        pid_t child = fork();
        if (child < 0) {
            perror("fork failed");
            exit(1);
        }
        if (child == 0) {
            /* Parent and child must not draw the same numbers. */
            check("reseeding", mbedtls_ctr_drbg_reseed(&random_bytes, NULL, 0));
            mbedtls_net_close(&listener);
            serve(&peer, address, length, mtu);
        }
        mbedtls_net_close(&peer);
    }
}

/* Offers the session in the file, if there is one. */
static void offer_session(mbedtls_ssl_context *ssl, const char *file) {
    static unsigned char bytes[LONGEST];
    mbedtls_ssl_session session;
    FILE *in = file ? fopen(file, "rb") : NULL;
    if (in == NULL)
        return;
    size_t length = fread(bytes, 1, sizeof bytes, in);
    fclose(in);
    mbedtls_ssl_session_init(&session);
    check("ssl_session_load", mbedtls_ssl_session_load(&session, bytes, length));
    check("ssl_set_session", mbedtls_ssl_set_session(ssl, &session));
    mbedtls_ssl_session_free(&session);
}

static void save_session(mbedtls_ssl_context *ssl, const char *file) {
    static unsigned char bytes[LONGEST];
    mbedtls_ssl_session session;
    size_t length;
    if (file == NULL)
        return;
    mbedtls_ssl_session_init(&session);
    check("ssl_get_session", mbedtls_ssl_get_session(ssl, &session));
    check("ssl_session_save", mbedtls_ssl_session_save(&session, bytes, sizeof bytes, &length));
    FILE *out = fopen(file, "wb");
    if (out == NULL || fwrite(bytes, 1, length, out) != length || fclose(out) != 0) {
        perror("writing the session failed");
        exit(1);
    }
    mbedtls_ssl_session_free(&session);
}

static int client(const char *host, const char *port, const char *ca, const char *name, int mtu,
                  const char *session) {
    mbedtls_net_context peer;
    mbedtls_ssl_context ssl;
    mbedtls_timing_delay_context timer;
    static char data[LONGEST];
    int result;

    prepare(MBEDTLS_SSL_IS_CLIENT);
    check("reading the authority", mbedtls_x509_crt_parse_file(&certificates, ca));
    mbedtls_ssl_conf_ca_chain(&config, &certificates, NULL);
    mbedtls_ssl_conf_authmode(&config, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_net_init(&peer);
    check("net_connect", mbedtls_net_connect(&peer, host, port, MBEDTLS_NET_PROTO_UDP));
    mbedtls_ssl_init(&ssl);
    check("ssl_setup", mbedtls_ssl_setup(&ssl, &config));
    check("ssl_set_hostname", mbedtls_ssl_set_hostname(&ssl, name));
    if (mtu > 0)
        mbedtls_ssl_set_mtu(&ssl, (uint16_t)mtu);
    offer_session(&ssl, session);
    mbedtls_ssl_set_timer_cb(&ssl, &timer, mbedtls_timing_set_delay, mbedtls_timing_get_delay);
    mbedtls_ssl_set_bio(&ssl, &peer, mbedtls_net_send, NULL, mbedtls_net_recv_timeout);
    do
        result = mbedtls_ssl_handshake(&ssl);
    while (result == MBEDTLS_ERR_SSL_WANT_READ || result == MBEDTLS_ERR_SSL_WANT_WRITE);
    check("handshake", result);
    save_session(&ssl, session);

    /* From here on both the network and standard input are waited for. */
    check("net_set_nonblock", mbedtls_net_set_nonblock(&peer));
    mbedtls_ssl_set_bio(&ssl, &peer, mbedtls_net_send, mbedtls_net_recv, NULL);
    struct pollfd ready[2] = {{.fd = peer.fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    for (;;) {
        while ((result = mbedtls_ssl_read(&ssl, (unsigned char *)data, sizeof data - 1)) > 0) {
            data[result] = 0;
            printf("%s\n", data);
            fflush(stdout);
        }
        if (result == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY || result == 0)
            break;
        if (result != MBEDTLS_ERR_SSL_WANT_READ && result != MBEDTLS_ERR_SSL_WANT_WRITE &&
            result != MBEDTLS_ERR_SSL_TIMEOUT)
            die("read", result);
        if (poll(ready, 2, -1) < 0 && errno != EINTR) {
            perror("poll failed");
            exit(1);
        }
        if (ready[1].revents != 0) {
            ssize_t length = read(STDIN_FILENO, data, sizeof data - 1);
            if (length <= 0)
                break;
            data[length] = 0;
            for (char *line = strtok(data, "\n"); line != NULL; line = strtok(NULL, "\n")) {
                result = mbedtls_ssl_write(&ssl, (unsigned char *)line, strlen(line));
                if (result < 0 && result != MBEDTLS_ERR_SSL_WANT_WRITE)
                    die("write", result);
            }
        }
    }
    mbedtls_ssl_close_notify(&ssl);
    return 0;
}

/* What follows `name` in the last of the words after the first six that begins with it. */
static const char *option(int count, char **words, const char *name) {
    for (int word = count - 1; word >= 6; word--)
        if (strncmp(words[word], name, strlen(name)) == 0)
            return words[word] + strlen(name);
    return NULL;
}

int main(int count, char **words) {
    const char *task = getenv("LAB_TASK");
    if (count == 2 && strcmp(words[1], "version") == 0) {
        char version[18];
        mbedtls_version_get_string_full(version);
        puts(version);
        return 0;
    }
    if (task != NULL && strcmp(task, "echo") != 0 && strcmp(task, "resume") != 0) {
        fprintf(stderr, "this program cannot do `%s`\n", task);
        return UNSUPPORTED;
    }
    if (count >= 6) {
        const char *mtu = option(count, words, "mtu="), *session = option(count, words, "session=");
        int bytes = mtu ? atoi(mtu) : 0;
        if (strcmp(words[1], "server") == 0)
            server(words[2], words[3], words[4], words[5], bytes);
        if (strcmp(words[1], "client") == 0)
            return client(words[2], words[3], words[4], words[5], bytes, session);
    }
    fprintf(stderr, "usage: lab-mbedtls version\n"
                    "       lab-mbedtls server HOST PORT CERT KEY [mtu=N]\n"
                    "       lab-mbedtls client HOST PORT CA NAME [mtu=N] [session=FILE]\n");
    return 2;
}
