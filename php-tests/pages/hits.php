<?php

/** ?name=…&times=…: so many reads in one request, and how many of them gave another token than the first. */

declare(strict_types=1);

require __DIR__ . '/mint.php';

answer(static function (): array {
    $first = shared_token_get($_GET['name']);
    $different = 0;
    for ($i = 1; $i < (int) $_GET['times']; $i++) {
        $different += shared_token_get($_GET['name']) === $first ? 0 : 1;
    }
    return ['token' => $first, 'different' => $different];
});
