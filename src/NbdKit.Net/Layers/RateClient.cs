using System.Net;

namespace NbdKit.Layers;

/// <summary>The buckets of one connection, or of all those that come from one address.</summary>
/// <param name="address">The address, or null for a connection alone.</param>
/// <param name="reads">The bucket of its reads.</param>
/// <param name="writes">The bucket of its writes.</param>
internal sealed class RateClient(IPAddress? address, RateBucket reads, RateBucket writes) : IDisposable
{
    public IPAddress? Address => address;

    public RateBucket Reads => reads;

    public RateBucket Writes => writes;

    /// <summary>The connections that use them; guarded by the filter.</summary>
    public int Users { get; set; }

    /// <summary>The address whose connections count together; null if there is none.</summary>
    public static IPAddress? AddressOf(NbdConnection? connection)
        => connection?.Peer.EndPoint is not IPEndPoint { Address: var address } ? null
            : address.IsIPv4MappedToIPv6 ? address.MapToIPv4() : address;

    public void Dispose()
    {
        reads.Dispose();
        writes.Dispose();
    }
}
