<?php

/** ?port=…[&options=JSON]: a token of the endpoint there, as an application's HTTP client gets it. */

declare(strict_types=1);

require __DIR__ . '/mint.php';

answer(static fn (): array => ['token' => shared_token_get('crm', static function (): string {
    $context = stream_context_create(['http' => ['method' => 'POST', 'ignore_errors' => true, 'timeout' => 5]]);
    $body = file_get_contents("http://127.0.0.1:{$_GET['port']}/token", false, $context);
    if (!str_contains($http_response_header[0] ?? '', ' 200 ')) {
        throw new RuntimeException('the issuer said ' . ($http_response_header[0] ?? 'nothing'));
    }
    return $body;
}, json_decode($_GET['options'] ?? '[]', true))]);
