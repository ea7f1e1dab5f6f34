<?php

declare(strict_types=1);

namespace Symfony\Component\DependencyInjection\Loader\Configurator;

use App\ClientCredentials;
use App\Orders;
use App\SharedTokenHttpClient;
use Symfony\Component\HttpClient\HttpClient;
use Symfony\Contracts\HttpClient\HttpClientInterface;

return static function (ContainerConfigurator $container): void {
    $services = $container->services()->defaults()->autowire();

    // With FrameworkBundle this is `framework.http_client.scoped_clients`.
    $services->set('crm.http', HttpClientInterface::class)
        ->factory([HttpClient::class, 'createForBaseUri'])
        ->args([env('CRM_URL'), ['max_duration' => 5]]);
    $services->alias(HttpClientInterface::class . ' $crmHttp', 'crm.http');

    $services->set(ClientCredentials::class)
        ->arg('$clientId', env('CRM_CLIENT_ID'))
        ->arg('$clientSecret', env('CRM_CLIENT_SECRET'));

    $services->set('crm.client', SharedTokenHttpClient::class)
        ->args([service('crm.http'), 'crm', service(ClientCredentials::class)]);
    $services->alias(HttpClientInterface::class . ' $crmClient', 'crm.client');

    $services->set(Orders::class)->public();
};
