// The lower limit: a bare epoll server that checks each frame's checksum and
// answers it. No session, no log, no time-out, no second protocol.
//
//   reference            prints its port, serves until it is killed
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS = 1 << 16, CHUNK = 1 << 16, ANSWER = 10, LONGEST = 260 };

// rest is half a frame that waits for its other half.
struct rest {
  int size;
  uint8_t bytes[LONGEST];
};

static uint16_t table[8][256];
static struct rest *rests[CONNECTIONS];

// CRC-16/X-25, eight bytes a step.
static void fill_table(void) {
  for (int i = 0; i < 256; i++) {
    uint16_t c = i;
    for (int k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0x8408 : c >> 1;
    table[0][i] = c;
  }
  for (int i = 0; i < 256; i++)
    for (int k = 1; k < 8; k++) table[k][i] = table[0][table[k - 1][i] & 255] ^ table[k - 1][i] >> 8;
}

static uint16_t checksum(const uint8_t *p, int n) {
  uint16_t c = 0xffff;
  for (; n >= 8; p += 8, n -= 8) {
    c ^= p[0] | p[1] << 8;
    c = table[7][c & 255] ^ table[6][c >> 8] ^ table[5][p[2]] ^ table[4][p[3]] ^ table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
  }
  while (n--) c = table[0][(c ^ *p++) & 255] ^ c >> 8;
  return ~c;
}

static void drop(int fd) {
  close(fd);
  free(rests[fd]);
  rests[fd] = NULL;
}

static void answer(uint8_t *out, const uint8_t *frame, int size) {
  out[0] = out[1] = 0x78;
  out[2] = 5;
  out[3] = frame[3];
  memcpy(out + 4, frame + size - 6, 2);
  uint16_t c = checksum(out + 2, 4);
  out[6] = c >> 8;
  out[7] = c;
  out[8] = 13;
  out[9] = 10;
}

static void serve(int fd) {
  static uint8_t in[CHUNK + LONGEST], out[CHUNK];
  int have = 0, used = 0, said = 0;
  if (rests[fd]) {
    have = rests[fd]->size;
    memcpy(in, rests[fd]->bytes, have);
  }
  int n = read(fd, in + have, CHUNK);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    drop(fd);
    return;
  }
  have += n;
  while (have - used >= 5) {
    uint8_t *frame = in + used;
    int size = frame[2] + 5;
    if (frame[0] != 0x78 || frame[1] != 0x78) {
      drop(fd);
      return;
    }
    if (have - used < size) break;
    if (checksum(frame + 2, size - 6) != (frame[size - 4] << 8 | frame[size - 3])) {
      drop(fd);
      return;
    }
    answer(out + said, frame, size);
    said += ANSWER;
    used += size;
  }
  if (used < have) {
    if (!rests[fd]) rests[fd] = malloc(sizeof *rests[fd]);
    rests[fd]->size = have - used;
    memcpy(rests[fd]->bytes, in + used, have - used);
  } else if (rests[fd]) {
    free(rests[fd]);
    rests[fd] = NULL;
  }
  if (said && write(fd, out, said) != said) drop(fd);
}

int main(void) {
  fill_table();
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0), one = 1;
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof addr;
  if (bind(listener, (void *)&addr, len) || listen(listener, 4096) || getsockname(listener, (void *)&addr, &len)) {
    perror("listen");
    return 1;
  }
  printf("%d\n", ntohs(addr.sin_port));
  fflush(stdout);
  struct epoll_event ev = {.events = EPOLLIN, .data.fd = listener}, events[256];
  epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev);
  for (;;) {
    int n = epoll_wait(ep, events, 256, -1);
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      if (fd != listener) {
        serve(fd);
        continue;
      }
      while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= CONNECTIONS) {
          close(fd);
          continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        ev = (struct epoll_event){.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
      }
    }
  }
}
