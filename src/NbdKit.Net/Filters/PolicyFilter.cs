using System.Runtime.InteropServices;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Has a function of the host judge every request before the layer below sees it: refuse it, change it, or just take note of it.
/// nbdkit has no such filter; its list of wishes asks for one that refuses requests that are valid but unwanted.
/// </summary>
/// <remarks>
/// Only for hosts: the catalogue, and with it the command, does not have it. Requests come as the client made them: a zero, a
/// prefetch or a forced write that the layers below emulate is one request here. A request costs no allocation.
/// </remarks>
public sealed class PolicyFilter : INbdFilter
{
    private RequestPolicy? _decide;

    /// <summary>
    /// Called for every request, on the thread that carries it out, by several at once. It must not block. What it throws fails the
    /// request, as any layer's exception does. Null, the default, lets everything pass. May be changed at any time and from any
    /// thread; holds for requests that begin afterwards.
    /// </summary>
    public RequestPolicy? Decide { get => Volatile.Read(ref _decide); set => Volatile.Write(ref _decide, value); }

    /// <inheritdoc/>
    public string Name => "policy";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new Handle(this, context);
    }

    private sealed class Handle(PolicyFilter filter, NbdContext context) : RequestHandle
    {
        public override async ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        {
            NbdExportInfo info = await base.GetInfoAsync(next, cancellationToken).ConfigureAwait(false);
            // Else questions about extents would be answered without coming here.
            return info with { CanExtents = true };
        }

        protected override ValueTask RunAsync(in LayerCall call, NextContext next, CancellationToken cancellationToken)
        {
            if (filter.Decide is not { } decide)
            {
                return call.Invoke(next, cancellationToken);
            }
            bool isWrite = call.Operation == LayerOperation.Write;
            var request = new PolicyRequest(
                context, call.Operation.ForClients(), call.Offset, call.Length, call.Flags, isWrite ? call.Memory : default);
            if (decide(ref request) is { } error)
            {
                return ValueTask.FromException(new NbdException(
                    error, request.Reason ?? $"the policy refused this {request.Operation} of {call.Length} bytes at {call.Offset}"));
            }
            if (request.Offset == call.Offset && request.Flags == call.Flags && (!isWrite || request.Data.Equals(call.Memory)))
            {
                return call.Invoke(next, cancellationToken);
            }
            return Changed(call, request, next.Info.Size).Invoke(next, cancellationToken);
        }

        private static LayerCall Changed(in LayerCall call, in PolicyRequest request, long size)
        {
            bool isWrite = call.Operation == LayerOperation.Write;
            if (request.Data.Length != (isWrite ? call.Memory.Length : 0))
            {
                throw new InvalidOperationException("A policy replaced the data of a request by more or less than there was.");
            }
            if (request.Offset != call.Offset)
            {
                if (call.Operation is LayerOperation.Extents or LayerOperation.Flush)
                {
                    throw new InvalidOperationException($"A policy moved a request of the kind {request.Operation}, which has to stay.");
                }
                if (request.Offset < 0 || request.Offset > size - call.Length)
                {
                    throw new NbdException(
                        NbdError.InvalidArgument, $"{call.Length} bytes at {request.Offset}, where the policy moved them, do not exist");
                }
            }
            if (call.Operation == LayerOperation.ReadSparse)
            {
                // Its holes would be told where they are, not where they were asked for.
                return LayerCall.Read(MemoryMarshal.AsMemory(call.Memory), request.Offset);
            }
            return call.With(request.Offset, request.Flags, isWrite ? request.Data : call.Memory);
        }
    }
}
