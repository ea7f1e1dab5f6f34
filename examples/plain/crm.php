<?php

/** The CRM's interface for a page without a framework: curl, and a token that all workers share. */

declare(strict_types=1);

/**
 * @param list<string> $headers
 *
 * @return array{int, string} status and body
 */
function crm_request(string $path, #[\SensitiveParameter] array $headers = [], #[\SensitiveParameter] ?string $form = null): array
{
    $curl = curl_init((string) getenv('CRM_URL') . $path);
    curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 5, CURLOPT_HTTPHEADER => $headers]);
    if ($form !== null) {
        curl_setopt($curl, CURLOPT_POSTFIELDS, $form);
    }
    $body = curl_exec($curl);
    if (!is_string($body)) {
        throw new RuntimeException('the CRM cannot be reached: ' . curl_error($curl));
    }
    return [(int) curl_getinfo($curl, CURLINFO_RESPONSE_CODE), $body];
}

/** The token response as it comes. Called by one worker of the fleet; the others get what it returns. */
function crm_mint(): string
{
    [$status, $body] = crm_request('/token', form: http_build_query([
        'grant_type' => 'client_credentials',
        'client_id' => getenv('CRM_CLIENT_ID'),
        'client_secret' => getenv('CRM_CLIENT_SECRET'),
    ]));
    return $status === 200 ? $body : throw new RuntimeException("the CRM answered $status to the request for a token");
}

/** The body of the CRM's answer. */
function crm_get(string $path): string
{
    $token = shared_token_get('crm', 'crm_mint');
    [$status, $body] = crm_request($path, ["Authorization: Bearer $token"]);
    if ($status === 401) {
        $token = shared_token_get('crm', 'crm_mint', ['rejected' => $token]);
        [$status, $body] = crm_request($path, ["Authorization: Bearer $token"]);
    }
    if ($status !== 200) {
        throw new RuntimeException("the CRM answered $status to $path");
    }
    return $body;
}

/** @return list<array{id: int, total: string, currency: string}> */
function crm_orders(): array
{
    /** @var array{orders: list<array{id: int, total: string, currency: string}>} $answer */
    $answer = json_decode(crm_get('/orders'), true, flags: JSON_THROW_ON_ERROR);
    return $answer['orders'];
}
