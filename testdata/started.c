// SPDX-License-Identifier: Apache-2.0
/*
 * started: an app that prints how long PID 1 took to start it. The kernel logs
 * when it runs PID 1; this program logs its own start, by the same clock.
 *
 * As PID 1 itself it does no more than a console needs, and starts itself as the
 * app: what any PID 1 costs on that machine.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static int report(void)
{
	static const char mark[] = "the app runs\n";
	unsigned long long at, ran = 0;
	char line[8192];
	ssize_t n;
	int fd = open("/dev/kmsg", O_RDWR | O_NONBLOCK);

	if (fd < 0 || write(fd, mark, sizeof(mark) - 1) < 0) {
		perror("/dev/kmsg");
		return 1;
	}
	while ((n = read(fd, line, sizeof(line) - 1)) > 0) {
		line[n] = 0;
		if (sscanf(line, "%*u,%*u,%llu,", &at) != 1)
			continue;
		if (strstr(line, "as init process"))
			ran = at;
		else if (strstr(line, mark))
			printf("STARTED %llu\n", at - ran); /* microseconds */
	}
	return 0;
}

int main(int argc, char **argv)
{
	int fd;

	if (getpid() != 1 || argc > 1)
		return report();
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	fd = open("/dev/console", O_RDWR);
	dup2(fd, 1);
	dup2(fd, 2);
	execl(argv[0], argv[0], "app", NULL);
	return 1;
}
