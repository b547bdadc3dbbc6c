/* Python with slot-agent inside: started by launcher.c through the bundle's loader, as `SELF WORD...`.
 *
 * All modules are frozen into this program (modules.h has the table of them), so that a worker starts without a look at
 * the file system; start.py finds those that are shared objects. Nothing of the image's Python, its PYTHON* variables or
 * its site-packages is looked at.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "modules.h" /* modules[] */
#include "names.h"

extern char **environ;

/* Give back what the launcher put aside. */
static void restore_variables(void)
{
	size_t prefix = strlen(ASIDE_PREFIX);
	for (char **variable = environ; *variable; variable++)
		if (!strncmp(*variable, ASIDE_PREFIX, prefix))
			*variable += prefix;
	unsetenv(HOME_VARIABLE);
}

static void check(PyStatus status)
{
	if (PyStatus_Exception(status))
		Py_ExitStatusException(status);
}

static void set(PyConfig *config, wchar_t **option, const char *text)
{
	check(PyConfig_SetBytesString(config, option, text));
}

int main(int count, char **arguments)
{
	char home[PATH_MAX];
	const char *given = getenv(HOME_VARIABLE);
	if (!given || strlen(given) >= sizeof home) {
		fputs("slot-agent: start me through the slot-agent launcher\n", stderr);
		return 2;
	}
	strcpy(home, given);
	restore_variables();
	prctl(PR_SET_NAME, "slot-agent"); /* else ps shows the loader's name */

	PyPreConfig before;
	PyPreConfig_InitIsolatedConfig(&before);
	before.utf8_mode = 1; /* an image may name a locale that it doesn't have */
	check(Py_PreInitialize(&before));

	PyImport_FrozenModules = modules;
	PyConfig config;
	PyConfig_InitIsolatedConfig(&config);
	config.write_bytecode = 0;
	config.site_import = 0;
	config.pathconfig_warnings = 0;
	config.install_signal_handlers = 1;
	config.optimization_level = 0; /* asserts stay */
	config.parse_argv = 0;
	check(PyConfig_SetBytesArgv(&config, count, arguments));
	set(&config, &config.program_name, arguments[0]);
	set(&config, &config.executable, arguments[0]);
	set(&config, &config.base_executable, arguments[0]);
	set(&config, &config.home, home);
	set(&config, &config.prefix, home);
	set(&config, &config.exec_prefix, home);
	set(&config, &config.base_prefix, home);
	set(&config, &config.base_exec_prefix, home);
	set(&config, &config.stdlib_dir, home); /* else frozen modules have no __file__, and some read theirs */
	config.module_search_paths_set = 1; /* to nothing */
	set(&config, &config.run_command, RUN);
	check(Py_InitializeFromConfig(&config));
	PyConfig_Clear(&config);
	return Py_RunMain();
}
