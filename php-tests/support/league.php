<?php

/**
 * What examples/league needs of league/oauth2-client 2.x, which is in no Debian package: a provider that asks the
 * token endpoint, and its AccessToken, with the library's own rules for `getExpires()`.
 */

declare(strict_types=1);

namespace League\OAuth2\Client\Token {
    final class AccessToken
    {
        /** @param array<string, mixed> $options */
        public function __construct(private readonly array $options)
        {
        }

        public function getToken(): string
        {
            return $this->options['access_token'];
        }

        /** Null where the issuer said nothing, 0 where it said 0. */
        public function getExpires(): ?int
        {
            return match ($in = $this->options['expires_in'] ?? null) {
                null => null,
                0 => 0,
                default => time() + $in,
            };
        }
    }
}

namespace League\OAuth2\Client\Provider {
    use League\OAuth2\Client\Token\AccessToken;

    final class GenericProvider
    {
        /** @param array<string, string> $options */
        public function __construct(private readonly array $options)
        {
        }

        public function getAccessToken(string $grant): AccessToken
        {
            $form = ['client_id' => $this->options['clientId'], 'client_secret' => $this->options['clientSecret'], 'grant_type' => $grant];
            $context = stream_context_create(['http' => [
                'method' => 'POST', 'timeout' => 5.0, 'header' => 'Content-Type: application/x-www-form-urlencoded', 'content' => http_build_query($form),
            ]]);
            return new AccessToken(json_decode((string) file_get_contents($this->options['urlAccessToken'], false, $context), true, flags: JSON_THROW_ON_ERROR));
        }
    }
}
