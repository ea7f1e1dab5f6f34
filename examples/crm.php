<?php

/**
 * A CRM for the examples to talk to: an OAuth 2.0 token endpoint, and orders for who has a token.
 *
 *   CRM_FOLDER=/tmp/crm php -S 127.0.0.1:8081 examples/crm.php
 *
 *   POST /token             for the client "example" with the secret "s3cret": a token of CRM_TOKEN_SECONDS (3600)
 *   POST /token/no-expiry   the same in an answer without expires_in, as some issuers have it
 *   GET  /orders            401 without a token that is in force
 *   POST /revoke            no token issued so far is in force any longer
 *
 * CRM_FOLDER keeps the tokens, and a log of requests that names none of them.
 */

declare(strict_types=1);

$folder = (string) getenv('CRM_FOLDER');
@mkdir($folder, 0700);
$path = (string) parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);

$issue = static function (bool $saysExpiry) use ($folder): array {
    $id = $_POST['client_id'] ?? $_SERVER['PHP_AUTH_USER'] ?? null;
    $secret = $_POST['client_secret'] ?? $_SERVER['PHP_AUTH_PW'] ?? null;
    if ([$_POST['grant_type'] ?? null, $id, $secret] !== ['client_credentials', 'example', 's3cret']) {
        return [401, ['error' => 'invalid_client']];
    }
    $seconds = (int) (getenv('CRM_TOKEN_SECONDS') ?: 3600);
    $token = bin2hex(random_bytes(20));
    file_put_contents("$folder/tokens", sprintf("%s %.6F %.6F\n", $token, microtime(true), microtime(true) + $seconds), FILE_APPEND | LOCK_EX);
    return [200, ['access_token' => $token, 'token_type' => 'Bearer'] + ($saysExpiry ? ['expires_in' => $seconds] : [])];
};

$inForce = static function () use ($folder): bool {
    $revoked = floatval(@file_get_contents("$folder/revoked"));
    foreach (@file("$folder/tokens") ?: [] as $line) {
        [$token, $issued, $expires] = explode(' ', rtrim($line));
        if (($_SERVER['HTTP_AUTHORIZATION'] ?? '') === "Bearer $token") {
            return floatval($issued) > $revoked && microtime(true) < floatval($expires);
        }
    }
    return false;
};

[$status, $answer] = match ($_SERVER['REQUEST_METHOD'] . " $path") {
    'POST /token' => $issue(true),
    'POST /token/no-expiry' => $issue(false),
    'GET /orders' => $inForce()
        ? [200, ['orders' => [['id' => 1, 'total' => '19.99', 'currency' => 'EUR'], ['id' => 2, 'total' => '5.00', 'currency' => 'EUR']]]]
        : [401, ['error' => 'invalid_token']],
    'POST /revoke' => [200, ['revoked' => (bool) file_put_contents("$folder/revoked", sprintf('%.6F', microtime(true)), LOCK_EX)]],
    default => [404, ['error' => 'not_found']],
};
file_put_contents("$folder/asked", "{$_SERVER['REQUEST_METHOD']} $path $status\n", FILE_APPEND | LOCK_EX);

http_response_code($status);
header('Content-Type: application/json');
echo json_encode($answer), "\n";
