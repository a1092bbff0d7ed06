namespace NbdKit.Layers;

/// <summary>
/// The door of a layer that does not take parallel calls. It is asynchronous: who has to wait holds no thread. Calls go
/// strictly downwards through a chain, so doors of different layers cannot wait for each other.
/// </summary>
internal sealed class RequestGate
{
    private readonly SemaphoreSlim _one = new(1, 1);

    public async ValueTask EnterAsync(CancellationToken cancellationToken)
        => await _one.WaitAsync(cancellationToken).ConfigureAwait(false);

    public void Exit() => _one.Release();

    /// <summary>
    /// The gate that one context of a layer needs: none, one of its own, or the layer's (<paramref name="shared"/>).
    /// </summary>
    public static RequestGate? For(ThreadModel model, RequestGate shared) => model switch
    {
        ThreadModel.Parallel or ThreadModel.SerializeRetirement => null,
        ThreadModel.SerializeRequests => new RequestGate(),
        _ => shared,
    };
}
