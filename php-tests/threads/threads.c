/*
 * A PHP server of many threads in one process, for the tests: what FrankenPHP or a threaded Apache does, and
 * nothing else. All threads serve the same script, again and again; the whole of PHP is shut down and started
 * again under them, as a reload does.
 *
 *   threads PHP.INI SCRIPT THREADS REQUESTS RUNS
 *
 * The script may use:
 *   here(): array                                  {run, request, thread}, each counted from 0
 *   meet(): void                                   waits until every thread has come here
 *   set_here(string $name, string $value): void    changes a system setting for this request, as php_admin_value does
 */
#include <sapi/embed/php_embed.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static const char *script;
static int threads, requests, runs;
static pthread_barrier_t at_script, at_module;

static __thread int thread, request, run;

PHP_FUNCTION(here)
{
	ZEND_PARSE_PARAMETERS_NONE();
	array_init(return_value);
	add_assoc_long(return_value, "run", run);
	add_assoc_long(return_value, "request", request);
	add_assoc_long(return_value, "thread", thread);
}

PHP_FUNCTION(meet)
{
	ZEND_PARSE_PARAMETERS_NONE();
	pthread_barrier_wait(&at_script);
}

PHP_FUNCTION(set_here)
{
	zend_string *name, *value;
	ZEND_PARSE_PARAMETERS_START(2, 2)
		Z_PARAM_STR(name)
		Z_PARAM_STR(value)
	ZEND_PARSE_PARAMETERS_END();
	/* A setting that exists may refuse: it keeps a secret elsewhere. Apache does not ask either. */
	if (zend_alter_ini_entry(name, value, PHP_INI_SYSTEM, PHP_INI_STAGE_HTACCESS) != SUCCESS && !zend_ini_get_value(name)) {
		zend_value_error("there is no setting %s", ZSTR_VAL(name));
	}
}

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(here_arguments, 0, 0, IS_ARRAY, 0)
ZEND_END_ARG_INFO()
ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(meet_arguments, 0, 0, IS_VOID, 0)
ZEND_END_ARG_INFO()
ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(set_here_arguments, 0, 2, IS_VOID, 0)
	ZEND_ARG_TYPE_INFO(0, name, IS_STRING, 0)
	ZEND_ARG_TYPE_INFO(0, value, IS_STRING, 0)
ZEND_END_ARG_INFO()

static const zend_function_entry functions[] = {
	ZEND_FE(here, here_arguments)
	ZEND_FE(meet, meet_arguments)
	ZEND_FE(set_here, set_here_arguments)
	ZEND_FE_END
};

static void fail(const char *what)
{
	fprintf(stderr, "threads: %s\n", what);
	_exit(2);
}

static void serve(void)
{
	zend_file_handle file;
	SG(options) |= SAPI_OPTION_NO_CHDIR;
	SG(request_info).path_translated = (char *) script;
	if (php_request_startup() != SUCCESS) {
		fail("a request did not start");
	}
	SG(headers_sent) = 1;
	SG(request_info).no_headers = 1;
	zend_stream_init_filename(&file, script);
	file.primary_script = 1;
	zend_first_try {
		php_execute_script(&file);
	} zend_end_try();
	zend_destroy_file_handle(&file);
	SG(request_info).path_translated = NULL;
	php_request_shutdown(NULL);
}

/* The threads outlive every run of PHP: what a module keeps per thread is there when PHP is gone. */
static void *work(void *number)
{
	thread = (int) (intptr_t) number;
	for (run = 0; run < runs; run++) {
		pthread_barrier_wait(&at_module);
		for (request = 0; request < requests; request++) {
			(void) ts_resource(0);
			serve();
			/* PHP's own memory of a thread may be younger than the thread, and often at the same address. */
			if (request % 2 || request == requests - 1) {
				ts_free_thread();
			}
		}
		pthread_barrier_wait(&at_module);
	}
	pthread_barrier_wait(&at_module);
	return NULL;
}

static void start(void)
{
	static char settings[] = "html_errors=0\nimplicit_flush=1\nmax_execution_time=0\n";
	php_tsrm_startup();
	zend_signal_startup();
	sapi_startup(&php_embed_module);
	php_embed_module.ini_entries = settings;
	php_embed_module.additional_functions = functions;
	if (php_embed_module.startup(&php_embed_module) != SUCCESS) {
		fail("PHP did not start");
	}
}

static void stop(void)
{
	php_embed_module.shutdown(&php_embed_module);
	sapi_shutdown();
	tsrm_shutdown();
}

int main(int argc, char **argv)
{
	if (argc != 6) {
		fail("usage: threads PHP.INI SCRIPT THREADS REQUESTS RUNS");
	}
	script = argv[2];
	threads = atoi(argv[3]);
	requests = atoi(argv[4]);
	runs = atoi(argv[5]);
	php_embed_module.php_ini_path_override = argv[1];

	pthread_t *started = calloc(threads, sizeof *started);
	pthread_barrier_init(&at_script, NULL, threads);
	pthread_barrier_init(&at_module, NULL, threads + 1);
	for (int i = 0; i < threads; i++) {
		if (pthread_create(&started[i], NULL, work, (void *) (intptr_t) i) != 0) {
			fail("no thread");
		}
	}
	for (int i = 0; i < runs; i++) {
		start();
		pthread_barrier_wait(&at_module);
		pthread_barrier_wait(&at_module);
		stop();
	}
	pthread_barrier_wait(&at_module);
	for (int i = 0; i < threads; i++) {
		pthread_join(started[i], NULL);
	}
	free(started);
	return 0;
}
