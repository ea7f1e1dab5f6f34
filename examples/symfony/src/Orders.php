<?php

declare(strict_types=1);

namespace App;

use Symfony\Component\DependencyInjection\Attribute\Target;
use Symfony\Contracts\HttpClient\HttpClientInterface;

/** What the application knows of orders; it does not know that there are tokens. */
final class Orders
{
    public function __construct(#[Target('crm.client')] private readonly HttpClientInterface $client)
    {
    }

    /** @return array<mixed> */
    public function all(): array
    {
        return $this->client->request('GET', '/orders')->toArray();
    }
}
