/* A wall clock that jumps for the programs that load this (LD_PRELOAD), and for nobody else on the machine.

   The file that CHAOS_CLOCK names holds a double: seconds to add to the real time. Clocks that only count
   (CLOCK_MONOTONIC) stay as they are, and so do the times that the file system writes. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile double *offset;

static double ahead(void) {
  if (!offset) {
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    void *found = mmap(NULL, sizeof(double), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (found == MAP_FAILED) return 0;
    offset = found;
  }
  return *offset;
}

int clock_gettime(clockid_t clock, struct timespec *when) {
  long code = syscall(SYS_clock_gettime, clock, when);
  if (code == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) when->tv_sec += (time_t)ahead();
  return (int)code;
}

int gettimeofday(struct timeval *restrict when, void *restrict zone) {
  struct timespec now;
  (void)zone;
  int code = clock_gettime(CLOCK_REALTIME, &now);
  when->tv_sec = now.tv_sec;
  when->tv_usec = now.tv_nsec / 1000;
  return code;
}

time_t time(time_t *where) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (where) *where = now.tv_sec;
  return now.tv_sec;
}
