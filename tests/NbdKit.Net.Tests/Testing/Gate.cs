namespace NbdKit.Tests.Testing;

/// <summary>Holds calls until a test opens it, and tells the test when they have arrived.</summary>
internal sealed class Gate
{
    private readonly SemaphoreSlim _arrived = new(0);
    private readonly TaskCompletionSource _open = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Waits at the gate.</summary>
    public async ValueTask PassAsync()
    {
        _arrived.Release();
        await _open.Task;
    }

    /// <summary>Waits at the gate until it opens or the token fires.</summary>
    public async ValueTask PassAsync(CancellationToken cancellationToken)
    {
        _arrived.Release();
        await _open.Task.WaitAsync(cancellationToken);
    }

    /// <summary>Waits until so many more calls have arrived.</summary>
    public async Task ArrivedAsync(int count = 1)
    {
        for (int i = 0; i < count; i++)
        {
            Assert.That(await _arrived.WaitAsync(WireClient.Deadline), $"call {i + 1} of {count} did not arrive");
        }
    }

    public void Open() => _open.TrySetResult();
}
