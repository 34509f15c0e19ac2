// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

// wayOut is the advice in the refusal of a pod whose image the webhook cannot read.
const wayOut = ": write the container's command out, or make the image readable: " +
	"pull secrets of the pod or its service account, registry, certificates"

// notLoggedIn is the cause in the webhook's refusal. The words are the same for all pull secrets,
// so that no answer shows which secrets a namespace has.
const notLoggedIn = "denied: the registry lets none of the pod's pull secrets read it"

// private is an image that the registry serves only after a login.
type private struct{ tag, digest string }

// publishPrivately pushes a new image, which no webhook and no node has read before, and returns
// its references in the registry that demands a login.
func publishPrivately(s *space.Space) private {
	s.Helper()
	_, known, _ := strings.Cut(cluster.Image, "/")
	public, err := name.ParseReference(cluster.Lab.Registry() + "/" + known)
	require.NoError(s, err)
	img, err := remote.Image(public, remote.WithContext(s.Context()))
	require.NoError(s, err)
	file, err := img.ConfigFile()
	require.NoError(s, err)
	require.NotEmpty(s, file.Config.Entrypoint, "the image alone knows the command")
	config := *file.Config.DeepCopy()
	config.Labels = map[string]string{"for": s.Namespace}
	img, err = mutate.Config(img, config)
	require.NoError(s, err)
	digest, err := img.Digest()
	require.NoError(s, err)
	repository := "/e2e/private"
	require.NoError(s, oci.Push(s.Context(), cluster.Lab.Registry()+repository+":"+s.Namespace, img))
	return private{lab.PrivateRegistry + repository + ":" + s.Namespace, lab.PrivateRegistry + repository + "@" + digest.String()}
}

// pullSecret makes a Secret as "kubectl create secret docker-registry" does.
func pullSecret(s *space.Space, name, password string) {
	s.Helper()
	file, err := json.Marshal(map[string]any{"auths": map[string]any{
		lab.PrivateRegistry: authn.AuthConfig{Username: lab.PrivateUser, Password: password},
	}})
	require.NoError(s, err)
	_, err = s.Client.CoreV1().Secrets(s.Namespace).Create(s.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: file},
	}, metav1.CreateOptions{})
	require.NoError(s, err)
}

// pulling returns an edit that makes a pod pull an image at each start, with the named
// secrets.
func pulling(reference string, secrets ...string) func(*corev1.PodSpec) {
	return func(spec *corev1.PodSpec) {
		spec.Containers[0].Image, spec.Containers[0].ImagePullPolicy = reference, corev1.PullAlways
		for _, secret := range secrets {
			spec.ImagePullSecrets = append(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: secret})
		}
	}
}

// wouldPull returns a pod that has the annotations, and whose spec the edits have changed.
func wouldPull(s *space.Space, annotations map[string]string, edits ...func(*corev1.PodSpec)) *corev1.Pod {
	pod := app.Bare(s, "pulls", annotations)
	for _, edit := range edits {
		edit(&pod.Spec)
	}
	return pod
}

// refusesToRead proposes annotated pods without a pull secret, and with each kind of wrong pull
// secret. Each pod must be refused. If the registry does not answer in time, refusesToRead tries
// again.
func refusesToRead(s *space.Space, t *testing.T, img private) {
	for what, test := range map[string]struct {
		edit func(*corev1.PodSpec)
		says string
	}{
		"no secret":             {pulling(img.tag), `container "app", image "` + img.tag + `": `},
		"no secret, by digest":  {pulling(img.digest), `container "app", image "` + img.digest + `": `},
		"a wrong one":           {pulling(img.digest, "wrong"), `container "app", image "` + img.digest + `": `},
		"one that is not there": {pulling(img.digest, "none"), `container "app", image "` + img.digest + `": `},
	} {
		t.Run(what, func(t *testing.T) {
			var err error
			s.Within(space.Soon, func() bool {
				_, err = webhook.Try(s, wouldPull(s, webhook.Claims, test.edit))
				return err == nil || strings.Contains(err.Error(), notLoggedIn)
			})
			require.Error(t, err)
			for _, words := range []string{"ImageUnreadable: ", test.says, wayOut} {
				assert.ErrorContains(t, err, words)
			}
			assert.ErrorContains(t, err, notLoggedIn)
			assert.NotContains(t, err.Error(), "UNAUTHORIZED", "words of the registry")
			assert.NotContains(t, err.Error(), lab.PrivatePassword)
			assert.NotContains(t, err.Error(), "\n", "a refusal is one line")
		})
	}
}

// The webhook and the nodes read the image with the pod's own credentials. Other
// credentials do not count, not even those with which the webhook has read the image
// before.
//
// docs/reference/compatibility.md: command/secret-of-pod command/secret-of-account carried
// docs/reference/compatibility.md: command/no-secret refused ImageUnreadable
func TestPrivateImageNeedsThePodsOwnCredentials(t *testing.T) {
	cluster.NeedLab(t, "its registry is one that demands a login")
	t.Parallel()
	s := space.New(t)
	img := publishPrivately(s)
	pullSecret(s, "good", lab.PrivatePassword)
	pullSecret(s, "wrong", "guess")
	_, err := s.Client.CoreV1().ServiceAccounts(s.Namespace).Create(t.Context(), &corev1.ServiceAccount{
		ObjectMeta:       metav1.ObjectMeta{Name: "puller"},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "good"}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Run("refused before anybody has read it", func(t *testing.T) { refusesToRead(s, t, img) })

	// Soon after the opt-in, enroll gives the webhook the right to read the secrets.
	s.Await(space.StartTimeout, "the webhook reads the secret", func() bool {
		_, err := webhook.Try(s, wouldPull(s, webhook.Claims, pulling(img.digest, "good")))
		return err == nil
	})
	ofPod, ofAccount := app.Lasting("of-pod"), app.Lasting("of-account")
	ofPod.Edit = func(template *corev1.PodTemplateSpec) { pulling(img.tag, "good")(&template.Spec) }
	ofAccount.Edit = func(template *corev1.PodTemplateSpec) {
		pulling(img.digest)(&template.Spec)
		template.Spec.ServiceAccountName = "puller"
	}
	for _, a := range []app.App{ofPod, ofAccount} {
		t.Run(a.Name, func(t *testing.T) {
			a.Replicas = 2
			app.Deploy(s, a)
			app.HandsOver(s, a)
		})
	}
	t.Run("refused after others have read it", func(t *testing.T) { refusesToRead(s, t, img) })
	t.Run("a Deployment hears of it", func(t *testing.T) { hearsOfUnreadable(s, t, img) })
	t.Run("with its command written out the pod is gated, and nobody is asked", func(t *testing.T) {
		gated, err := webhook.Try(s, wouldPull(s, webhook.Claims, pulling(img.digest), func(spec *corev1.PodSpec) {
			spec.Containers[0].Command = []string{"/app"}
		}))
		require.NoError(t, err)
		assert.Equal(t, api.Gated, gated.Labels[api.GatedLabel])
	})
	t.Run("unannotated it is admitted as ever, and the node may not pull either", func(t *testing.T) { nodeMayNotPull(s, t, img) })
}

// hearsOfUnreadable creates a Deployment whose image the webhook cannot read, and waits for the
// Event on this Deployment.
func hearsOfUnreadable(s *space.Space, t *testing.T, img private) {
	a := app.Singleton("of-nobody")
	a.Edit = func(template *corev1.PodTemplateSpec) { pulling(img.digest)(&template.Spec) }
	kubectl.Must(s, kubectl.Manifest(s, app.Deployment(s, a)), "apply", "-f", "-")
	s.Await(space.StartTimeout, "an Event on the Deployment", func() bool {
		event := s.Event("Deployment", a.Name, "ImageUnreadable")
		return event != nil && strings.Contains(event.Message, img.digest) && strings.Contains(event.Message, wayOut)
	})
	assert.Empty(t, s.Pods(a.Name))
}

// nodeMayNotPull creates an ungated pod, and waits until the kubelet has failed to pull its image.
func nodeMayNotPull(s *space.Space, t *testing.T, img private) {
	_, err := s.Client.CoreV1().Pods(s.Namespace).Create(t.Context(), wouldPull(s, nil, pulling(img.digest)), metav1.CreateOptions{})
	require.NoError(t, err)
	s.Await(space.StartTimeout, "the kubelet says so", func() bool {
		now := s.Pod("pulls")
		if now == nil || len(now.Status.ContainerStatuses) == 0 {
			return false
		}
		waiting := now.Status.ContainerStatuses[0].State.Waiting
		return waiting != nil && strings.Contains(waiting.Message, "pull access denied")
	})
}
