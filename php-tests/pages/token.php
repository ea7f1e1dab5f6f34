<?php

/** ?name=…[&ms=200][&ttl=3600][&options=JSON]: one shared_token_get. */

declare(strict_types=1);

require __DIR__ . '/mint.php';

answer(static fn (): array => ['token' => shared_token_get(
    $_GET['name'],
    static fn (): array => mint($_GET['name'], (int) ($_GET['ms'] ?? 200), (float) ($_GET['ttl'] ?? 3600)),
    json_decode($_GET['options'] ?? '[]', true),
)]);
