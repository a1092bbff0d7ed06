using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>Tells the requests that clients make from the calls that layers make of them.</summary>
internal static class RequestOperations
{
    /// <summary>The number of kinds of requests.</summary>
    public const int Count = (int)RequestOperation.Flush + 1;

    /// <summary>The kind of request that a call is.</summary>
    public static RequestOperation ForClients(this LayerOperation operation) => operation switch
    {
        LayerOperation.Read or LayerOperation.ReadSparse => RequestOperation.Read,
        LayerOperation.Write => RequestOperation.Write,
        LayerOperation.Trim => RequestOperation.Trim,
        LayerOperation.Zero => RequestOperation.Zero,
        LayerOperation.Extents => RequestOperation.Extents,
        LayerOperation.Cache => RequestOperation.Cache,
        _ => RequestOperation.Flush,
    };
}
