<?php

/** ?name=…: drops the token, whatever it is, and gets another. */

declare(strict_types=1);

require __DIR__ . '/mint.php';

answer(static function (): array {
    shared_token_invalidate($_GET['name']);
    return ['token' => shared_token_get($_GET['name'], static fn (): array => mint($_GET['name'], 0, 3600.0))];
});
