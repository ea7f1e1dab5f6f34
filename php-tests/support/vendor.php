<?php

/** An example's vendor/autoload.php (this file is copied there) where Debian's packages stand in for Composer's downloads. */

declare(strict_types=1);

(static function (): void {
    $packages = [
        'guzzlehttp/guzzle' => 'GuzzleHttp/autoload.php',
        'illuminate/config' => 'Illuminate/Config/autoload.php',
        'illuminate/container' => 'Illuminate/Container/autoload.php',
        'illuminate/http' => 'Illuminate/Http/autoload.php',
        'illuminate/support' => 'Illuminate/Support/autoload.php',
        // Debian has none; its shape.
        'league/oauth2-client' => __DIR__ . '/league.php',
        'symfony/config' => 'Symfony/Component/Config/autoload.php',
        'symfony/dependency-injection' => 'Symfony/Component/DependencyInjection/autoload.php',
        'symfony/http-client' => 'Symfony/Component/HttpClient/autoload.php',
        'vlucas/phpdotenv' => 'Dotenv/autoload.php',
    ];
    $composer = json_decode((string) file_get_contents(dirname(__DIR__) . '/composer.json'), true, flags: JSON_THROW_ON_ERROR);
    foreach (array_keys($composer['require']) as $name) {
        // The others are PHP and its extensions.
        if (str_contains($name, '/')) {
            require_once $packages[$name];
        }
    }
    $namespaces = $composer['autoload']['psr-4'] ?? [];
    spl_autoload_register(static function (string $class) use ($namespaces): void {
        foreach ($namespaces as $prefix => $folder) {
            $file = dirname(__DIR__) . "/$folder" . strtr(substr($class, strlen($prefix)), '\\', '/') . '.php';
            if (str_starts_with($class, $prefix) && is_file($file)) {
                require $file;
            }
        }
    });
})();
