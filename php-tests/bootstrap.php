<?php

/**
 * The tests run the extension in processes of their own (php, php-fpm): this process never loads it.
 *
 *   SHAREDSTATE_SO    the extension; target/release/libsharedstate.so if not set
 *   POLYFILL          apcu or array: the suite `api` on the PHP polyfill of stubs/ with that store. With
 *                     --exclude-group extension, and for array --exclude-group extension,processes
 *   BRICK_MATH        the autoloader of brick/math for it; Debian's if not set
 *   TEST_FOLDER       where tests make their folders; in memory if not set
 *   PHP, PHP_FPM      the binaries; this one and its php-fpm if not set
 *   FULL=1            the run times and repeats that the acceptance list names (CI); shorter ones otherwise
 */

declare(strict_types=1);

spl_autoload_register(static function (string $class): void {
    $prefix = 'SharedState\\Tests\\Support\\';
    if (str_starts_with($class, $prefix)) {
        require __DIR__ . '/support/' . substr($class, strlen($prefix)) . '.php';
    }
});

SharedState\Tests\Support\Process::endAllWithThisOne();
SharedState\Tests\Support\Build::check();
