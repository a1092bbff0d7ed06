using NbdKit.Layers;

namespace NbdKit.Plugins.Mirror;

/// <summary>A member as one context of the mirror has it open.</summary>
internal sealed record MirrorLeg(MirrorMember Member, InnerContext Inner)
{
    public NextContext Next => Inner.Next;
}
