<?php

/** The token object of league/oauth2-client goes in as it is: `getToken()` and `getExpires()` say all. */

declare(strict_types=1);

use League\OAuth2\Client\Provider\GenericProvider;

require __DIR__ . '/vendor/autoload.php';

$url = (string) getenv('CRM_URL');
$provider = static fn (string $endpoint): GenericProvider => new GenericProvider([
    'clientId' => (string) getenv('CRM_CLIENT_ID'),
    'clientSecret' => (string) getenv('CRM_CLIENT_SECRET'),
    'urlAccessToken' => $url . $endpoint,
    'urlAuthorize' => "$url/authorize",
    'urlResourceOwnerDetails' => "$url/me",
]);

// The provider is made by the one who mints, and by nobody else.
$token = shared_token_get('crm', static fn () => $provider('/token')->getAccessToken('client_credentials'));

// Where the issuer says nothing of a lifetime, getExpires() is null, or 0: then `ttl` has to say it.
$other = shared_token_get('crm-no-expiry', static fn () => $provider('/token/no-expiry')->getAccessToken('client_credentials'), ['ttl' => 1800]);

foreach (['crm' => $token, 'crm-no-expiry' => $other] as $name => $value) {
    $seconds = (shared_token_info($name)['expires_at'] ?? 0) - time();
    printf("%s: a token of %d characters for %d minutes\n", $name, strlen($value), round($seconds / 60));
}
