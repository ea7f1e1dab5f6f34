<?php

/** ?name=…&do=…: a callable that does not come back in the ordinary way. */

declare(strict_types=1);

require __DIR__ . '/mint.php';

answer(static fn (): array => ['token' => shared_token_get($_GET['name'], static function (): string {
    note('start', $_GET['name']);
    switch ($_GET['do']) {
        case 'exit':
            exit('gone');
        case 'throw':
            throw new RuntimeException('the endpoint said no');
        case 'fatal':
            trigger_error('fatal in the callable', E_USER_ERROR);
        case 'undefined':
            undefined_function();
        case 'memory':
            ini_set('memory_limit', '8M');
            $hog = [];
            while (true) {
                $hog[] = str_repeat('x', 100_000);
            }
        case 'time':
            set_time_limit(1);
            while (true) {
                sqrt(2.0);
            }
    }
    return 'never reached';
}, ['ttl' => 3600])]);
