<?php

/**
 * The shop page of build/demo: it needs a token of a partner's API, and says which one it got.
 *
 *   ?cache=process|apcu|shared    where the token is kept
 *   ?check=1                      ask the OAuth server whether that token is still good
 */

declare(strict_types=1);

require __DIR__ . '/counted.php';

function post(string $path, string $client, array $form): array
{
    $answer = file_get_contents(getenv('OAUTH_URL') . $path, false, stream_context_create(['http' => [
        'method' => 'POST',
        'header' => [
            'Content-Type: application/x-www-form-urlencoded',
            'Authorization: Basic ' . base64_encode("$client:$client-secret"),
        ],
        'content' => http_build_query($form),
        'timeout' => 5,
    ]]));
    if ($answer === false) {
        throw new RuntimeException("POST $path failed");
    }
    return json_decode($answer, true, flags: JSON_THROW_ON_ERROR);
}

/** @return array{access_token: string, expires_in: int} */
function mint(string $client): array
{
    return post('/token', $client, ['grant_type' => 'client_credentials']);
}

/**
 * Naive: every process keeps a token of its own, for as long as the answer says.
 *
 * In Swoole, RoadRunner, FrankenPHP's worker mode and queue workers this is a static property. php-fpm forgets
 * statics after every request, so what such a process remembers is modelled by one APCu key per process id.
 */
function token_of_this_process(string $client): string
{
    $key = 'token-of-' . getmypid();
    $kept = apcu_fetch($key);
    if ($kept !== false && $kept['until'] > microtime(true)) {
        count_up('hits');
        return $kept['token'];
    }
    $response = mint($client);
    count_up('mints');
    count_up('lifetime_ms', 1000 * $response['expires_in']);
    apcu_store($key, ['token' => $response['access_token'], 'until' => microtime(true) + $response['expires_in']]);
    return $response['access_token'];
}

/** APCu at its best: one mint per php-fpm master, everybody else waits on APCu's lock meanwhile. */
function token_of_this_master(string $client): string
{
    return apcu_entry(
        'token',
        static fn (): string => mint($client)['access_token'],
        (int) getenv('TOKEN_TTL') - (int) getenv('MARGIN'),
    );
}

/** The margin is the setting sharedstate.token.expiry_margin_s; the lifetime is read from the answer. */
function token_of_everybody(string $client): string
{
    return shared_token_get('shop', static fn (): array => mint($client));
}

$client = 'shop-' . $_GET['cache'];
$token = match ($_GET['cache']) {
    'process' => token_of_this_process($client),
    'apcu' => token_of_this_master($client),
    'shared' => token_of_everybody($client),
};
$served = microtime(true);

header('Content-Type: application/json');
echo json_encode([
    'token' => substr(hash('sha256', $token), 0, 16),
    'served' => $served,
    'active' => isset($_GET['check']) ? post('/token/introspection', $client, ['token' => $token])['active'] : null,
    'host' => getenv('HOST'),
], JSON_THROW_ON_ERROR);
