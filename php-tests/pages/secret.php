<?php

/** ?name=…[&hold=ms]: gets a token and says only its checksum; keeps it for a while before the request ends. */

declare(strict_types=1);

require __DIR__ . '/mint.php';

answer(static function (): array {
    $token = shared_token_get($_GET['name'], static fn (): array => mint($_GET['name'], 0, 3600.0));
    $sum = crc32($token);
    usleep((int) ($_GET['hold'] ?? 0) * 1000);
    return ['sum' => $sum];
});
