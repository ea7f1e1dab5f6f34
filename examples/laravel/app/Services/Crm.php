<?php

declare(strict_types=1);

namespace App\Services;

use Illuminate\Http\Client\Factory;
use Illuminate\Http\Client\PendingRequest;
use Illuminate\Http\Client\Response;

/** The CRM's interface. It holds no token, so one object may live as long as the process (Octane, a queue worker). */
final class Crm
{
    /** @param array{url: string, client_id: string, client_secret: string} $config */
    public function __construct(private readonly Factory $http, #[\SensitiveParameter] private readonly array $config)
    {
    }

    /** @return list<array{id: int, total: string, currency: string}> */
    public function orders(): array
    {
        /** @var list<array{id: int, total: string, currency: string}> */
        return $this->get('/orders')->throw()->json('orders');
    }

    private function get(string $path): Response
    {
        $token = $this->token();
        $response = $this->request()->withToken($token)->get($path);
        if ($response->status() !== 401) {
            return $response;
        }
        return $this->request()->withToken($this->token(['rejected' => $token]))->get($path);
    }

    /** @param array{rejected?: string} $options */
    private function token(#[\SensitiveParameter] array $options = []): string
    {
        return shared_token_get('crm', $this->mint(...), $options);
    }

    private function mint(): string
    {
        return $this->request()
            ->withBasicAuth($this->config['client_id'], $this->config['client_secret'])
            ->asForm()
            ->post('/token', ['grant_type' => 'client_credentials'])
            ->throw()
            ->body();
    }

    private function request(): PendingRequest
    {
        return $this->http->baseUrl($this->config['url'])->timeout(5);
    }
}
