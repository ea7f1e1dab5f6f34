<?php

/** Prepended to every command line test with POLYFILL: what Composer's autoloader does for an application. */

declare(strict_types=1);

require getenv('BRICK_MATH') ?: '/usr/share/php/Brick/Math/autoload.php';

spl_autoload_register(static function (string $class): void {
    $prefix = 'SharedState\\Polyfill\\';
    if (str_starts_with($class, $prefix)) {
        require dirname(__DIR__, 2) . '/stubs/polyfill/' . substr($class, strlen($prefix)) . '.php';
    }
});

require dirname(__DIR__, 2) . '/stubs/polyfill/bootstrap.php';
