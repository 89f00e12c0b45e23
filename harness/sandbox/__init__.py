"""Runs generated programs in processes that the kernel restricts."""
