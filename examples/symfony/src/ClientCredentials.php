<?php

declare(strict_types=1);

namespace App;

use Symfony\Component\DependencyInjection\Attribute\Target;
use Symfony\Contracts\HttpClient\HttpClientInterface;

/** Mints: asks the CRM for a token. One process of the fleet calls it, when one is needed. */
final class ClientCredentials
{
    public function __construct(
        #[Target('crm.http')] private readonly HttpClientInterface $client,
        private readonly string $clientId,
        #[\SensitiveParameter] private readonly string $clientSecret,
    ) {
    }

    /** @return string the token response as it came */
    public function __invoke(): string
    {
        return $this->client->request('POST', '/token', [
            'auth_basic' => [$this->clientId, $this->clientSecret],
            'body' => ['grant_type' => 'client_credentials'],
        ])->getContent();
    }
}
