<?php

/**
 * A client whose API answered 401.
 *
 *   ?name=…&old=TOKEN      the API refuses that one token: invalidate it, then get
 *   ?name=…&always=1       the API refuses whatever it is given
 */

declare(strict_types=1);

require __DIR__ . '/mint.php';

answer(static function (): array {
    $get = static fn (): string => shared_token_get(
        $_GET['name'],
        static fn (): array => mint($_GET['name'], (int) ($_GET['ms'] ?? 200), 3600.0),
    );
    $refused = $_GET['old'] ?? $get();
    $dropped = shared_token_invalidate($_GET['name'], $refused);
    return ['dropped' => $dropped, 'token' => $get()];
});
