<?php

/** ?name=…&times=…: so many reads, and then the worker dies. */

declare(strict_types=1);

require __DIR__ . '/mint.php';

answer(static function (): array {
    for ($i = 0; $i < (int) $_GET['times']; $i++) {
        shared_token_get($_GET['name']);
    }
    exec('kill -KILL ' . getmypid());
    return [];
});
