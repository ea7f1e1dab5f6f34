<?php

/** Stands in for a Symfony application, whose kernel compiles the container and keeps it. */

declare(strict_types=1);

use App\Orders;
use Symfony\Component\Config\FileLocator;
use Symfony\Component\DependencyInjection\ContainerBuilder;
use Symfony\Component\DependencyInjection\Loader\PhpFileLoader;

require __DIR__ . '/vendor/autoload.php';

$container = new ContainerBuilder();
(new PhpFileLoader($container, new FileLocator(__DIR__ . '/config')))->load('services.php');
$container->compile(true);

// In a controller or a command: a parameter of type Orders.
/** @var Orders $orders */
$orders = $container->get(Orders::class);
echo json_encode($orders->all()), "\n";
