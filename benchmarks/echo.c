/* The floor: a UDP server that does nothing but receive and send.
 *
 * It takes datagrams in batches with recvmmsg, appends one fixed address record to each without looking at the
 * question, and sends them back with sendmmsg: what any DNS server on this kernel has to pay before it does any work.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, SIZE = 512, HEADER = 12 };

/* The question's name, A, IN, a day, 192.0.2.4. */
static const unsigned char record[] = {0xc0, 12, 0, 1, 0, 1, 0, 1, 0x51, 0x80, 0, 4, 192, 0, 2, 4};

static unsigned char data[BATCH][SIZE];
static struct sockaddr_in clients[BATCH];
static struct iovec vectors[BATCH];
static struct mmsghdr messages[BATCH];

static void offer_buffers(int count)
{
    for (int i = 0; i < count; i++) {
        vectors[i].iov_base = data[i];
        vectors[i].iov_len = SIZE - sizeof record;
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        messages[i].msg_hdr.msg_name = &clients[i];
        messages[i].msg_hdr.msg_namelen = sizeof clients[i];
    }
}

static size_t answer(unsigned char *message, size_t length)
{
    if (length < HEADER)
        return length;
    message[2] |= 0x80; /* QR: a response */
    message[7] = 1;     /* ANCOUNT */
    memcpy(message + length, record, sizeof record);
    return length + sizeof record;
}

int main(int argc, char **argv)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    here.sin_port = htons(argc > 1 ? atoi(argv[1]) : 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here) < 0) {
        perror("echo");
        return 1;
    }
    offer_buffers(BATCH);
    for (;;) {
        int received = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < received; i++)
            vectors[i].iov_len = answer(data[i], messages[i].msg_len);
        for (int sent = 0; sent < received;) {
            int done = sendmmsg(fd, messages + sent, received - sent, 0);
            sent += done > 0 ? done : 1; /* one that cannot be sent is lost, as datagrams are */
        }
        if (received > 0)
            offer_buffers(received);
    }
}
