<?php

/** The CRM's client: Guzzle with a bearer token that all workers share, and that is dropped on a 401. */

declare(strict_types=1);

use App\SharedToken;
use GuzzleHttp\Client;
use GuzzleHttp\HandlerStack;
use GuzzleHttp\Psr7\Uri;

require_once __DIR__ . '/vendor/autoload.php';

$url = (string) getenv('CRM_URL');

// A client of its own: a token is not asked for with a token.
$issuer = new Client(['base_uri' => $url, 'timeout' => 5.0]);
$mint = static fn (): string => (string) $issuer->post('/token', [
    'auth' => [(string) getenv('CRM_CLIENT_ID'), (string) getenv('CRM_CLIENT_SECRET')],
    'form_params' => ['grant_type' => 'client_credentials'],
])->getBody();

$stack = HandlerStack::create();
$stack->push(new SharedToken('crm', new Uri($url), $mint), 'shared_token');

return new Client(['base_uri' => $url, 'timeout' => 5.0, 'handler' => $stack]);
