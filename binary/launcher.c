/* The file that people and containers execute. Static, so that it needs nothing of the image it is run in: no C library,
 * no loader, no shell, no interpreter. It starts the program of the bundle through the bundle's own loader.
 *
 * The bundle is a folder named BUNDLE (which names its content) beside this file, where `slot-agent install` put it. The
 * one-file build carries the bundle's files behind its own end instead, and unpacks those that are missing into
 * TMPDIR/BUNDLE-UID: once for each user and version, and again what somebody cleaned away.
 *
 *   ELF | content of each file, from page to page | for each file: u64 offset, u64 size, u32 mode, u32 length, name
 *       | u64 offset of that list, u64 files, 8 bytes of magic
 *
 * Variables that would steer our loader are meant for the image's programs: they are put aside under another name, and
 * program.c puts them back before the tasks' commands can see the difference.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "names.h" /* BUNDLE, LOADER, PROGRAM, LIBRARIES, HOME_VARIABLE, ASIDE_PREFIX, MAGIC */

enum { EXIT_CANNOT_START = 127, OWN_ARGUMENTS = 7 };

extern char **environ;

struct trailer {
	uint64_t list, files;
	char magic[8];
};

struct entry {
	uint64_t offset, size;
	uint32_t mode, length;
};

static void die(const char *doing, const char *path)
{
	fprintf(stderr, "slot-agent: can't %s %s: %s\n", doing, path, strerror(errno));
	exit(EXIT_CANNOT_START);
}

static void join(char *result, const char *format, const char *folder, const char *name)
{
	if (snprintf(result, PATH_MAX, format, folder, name) >= PATH_MAX) {
		errno = ENAMETOOLONG;
		die("use", folder);
	}
}

/* This file's path. /proc may be missing in a bare root; the kernel also tells what was asked for. */
static void find_self(char *self)
{
	ssize_t length = readlink("/proc/self/exe", self, PATH_MAX - 1);
	if (length > 0) {
		self[length] = 0;
		return;
	}
	const char *asked = (const char *)getauxval(AT_EXECFN);
	if (!asked || !realpath(asked, self))
		die("find", asked ? asked : "myself");
}

static int is_whole(const char *path, const struct entry *entry)
{
	struct stat found;
	return lstat(path, &found) == 0 && S_ISREG(found.st_mode) && (uint64_t)found.st_size == entry->size;
}

/* Under another name first: other processes may be starting from the same folder. */
static void unpack(int self, const struct entry *entry, const char *path)
{
	char temporary[PATH_MAX];
	join(temporary, "%s.%s", path, "XXXXXX");
	int file = mkstemp(temporary);
	if (file < 0)
		die("write", temporary);
	off_t offset = (off_t)entry->offset;
	uint64_t left = entry->size;
	while (left > 0) {
		ssize_t sent = sendfile(file, self, &offset, left);
		if (sent > 0) {
			left -= (uint64_t)sent;
			continue;
		}
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent == 0)
			errno = EIO; /* this file was cut short */
		int problem = errno;
		unlink(temporary);
		errno = problem;
		die("write", path);
	}
	if (fchmod(file, entry->mode) || close(file) || rename(temporary, path))
		die("write", path);
}

/* A folder that nobody else can write to: others may own the temporary folder's name that we want. */
static void own_folder(char *path)
{
	struct stat found;
	if (mkdir(path, 0700) == 0 || errno == EEXIST) {
		if (lstat(path, &found) == 0 && S_ISDIR(found.st_mode) && found.st_uid == geteuid() && !(found.st_mode & 022))
			return;
		char other[PATH_MAX];
		join(other, "%s-%s", path, "XXXXXX");
		strcpy(path, other);
		if (mkdtemp(path))
			return;
	}
	die("make a folder for temporary files (set TMPDIR):", path);
}

/* What the one-file build carries, in a temporary folder. 0 if this file carries nothing. */
static int unpack_all(const char *self, char *home)
{
	struct trailer trailer;
	int file = open(self, O_RDONLY | O_CLOEXEC);
	off_t end = file < 0 ? -1 : lseek(file, -(off_t)sizeof trailer, SEEK_END);
	if (end < 0)
		die("read", self);
	if (read(file, &trailer, sizeof trailer) != sizeof trailer || memcmp(trailer.magic, MAGIC, sizeof trailer.magic))
		return 0;
	size_t size = (size_t)(end - (off_t)trailer.list);
	char *list = malloc(size);
	if (!list || pread(file, list, size, (off_t)trailer.list) != (ssize_t)size)
		die("read", self);
	const char *folder = getenv("TMPDIR");
	char name[sizeof BUNDLE + 16];
	snprintf(name, sizeof name, "%s-%u", BUNDLE, (unsigned)geteuid());
	join(home, "%s/%s", folder && *folder ? folder : "/tmp", name);
	own_folder(home);
	for (char *at = list; trailer.files--;) {
		struct entry entry;
		char path[PATH_MAX], file_name[NAME_MAX + 1] = "";
		memcpy(&entry, at, sizeof entry);
		at += sizeof entry;
		if (entry.length > NAME_MAX) {
			errno = ENAMETOOLONG;
			die("read", self);
		}
		memcpy(file_name, at, entry.length);
		at += entry.length;
		join(path, "%s/%s", home, file_name);
		if (is_whole(path, &entry))
			continue;
		char *slash = strrchr(file_name, '/');
		if (slash) {
			char below[PATH_MAX];
			*slash = 0;
			join(below, "%s/%s", home, file_name);
			if (mkdir(below, 0700) && errno != EEXIST)
				die("make", below);
		}
		unpack(file, &entry, path);
	}
	close(file);
	return 1;
}

static int steers_loader(const char *variable)
{
	return !strncmp(variable, "LD_", 3) || !strncmp(variable, "GLIBC_TUNABLES=", 15);
}

static void put_aside(void)
{
	for (char **variable = environ; *variable; variable++)
		if (steers_loader(*variable) && asprintf(variable, ASIDE_PREFIX "%s", *variable) < 0)
			die("start", "without memory");
}

/* The first process of a container gets no signal that it has no handler for: a SIGTERM that comes while it starts would
 * be lost, and its Pod would hang for its whole grace. What is blocked is kept instead, and agent/signals.py takes it.
 */
static void keep_signals(void)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
}

int main(int count, char **arguments)
{
	keep_signals();
	char self[PATH_MAX], home[PATH_MAX], folder[PATH_MAX], loader[PATH_MAX], libraries[PATH_MAX], program[PATH_MAX];
	find_self(self);
	strcpy(folder, self);
	*strrchr(folder, '/') = 0;
	join(home, "%s/%s", folder, BUNDLE);
	join(program, "%s/%s", home, PROGRAM);
	if (access(program, F_OK)) {
		if (!unpack_all(self, home)) {
			errno = ENOENT;
			die("find my files:", program);
		}
		join(program, "%s/%s", home, PROGRAM);
	}
	join(loader, "%s/%s", home, LOADER);
	join(libraries, "%s/%s", home, LIBRARIES);

	char **command = calloc((size_t)count + OWN_ARGUMENTS + 1, sizeof *command);
	if (!command)
		die("start", loader);
	char *own[OWN_ARGUMENTS] = {loader, "--inhibit-cache", "--library-path", libraries, "--argv0", self, program};
	memcpy(command, own, sizeof own);
	if (count > 1)
		memcpy(command + OWN_ARGUMENTS, arguments + 1, (size_t)(count - 1) * sizeof *arguments);
	put_aside();
	if (setenv(HOME_VARIABLE, home, 1))
		die("start", loader);
	execv(loader, command);
	die("start", loader);
}
